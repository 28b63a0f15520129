"""Writes results.json: what the real package answers, but for where the drop-in may differ.

KVX_TEST_MOONCAKE_PYTHON=/path/to/python python record.py
"""

from __future__ import annotations

import json
import os
import sys

from cases import CASES
from differences import DIFFERENCES
from results import PATH
from world import Implementation, World


def main() -> None:
    """Plays all cases."""
    implementation = Implementation(os.environ["KVX_TEST_MOONCAKE_PYTHON"], {})
    listed = {(entry.case, entry.note) for part in DIFFERENCES.values() for entry in part}
    results = {}
    for name, case in CASES.items():
        print(name, file=sys.stderr)
        with World(implementation) as world:
            notes = case(world)
        results[name] = {n: value for n, value in notes.items() if (name, n) not in listed}
    PATH.write_text(json.dumps(results, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
