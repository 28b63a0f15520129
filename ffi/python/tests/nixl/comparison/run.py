"""Runs cases against whichever `nixl_cu12` comes first on sys.path and writes down what they saw.

    python run.py JOB.json OUT.jsonl

The job says which cases, which looks to leave out, and whether to dare what crashes at random. One
JSON line a step, written as it ends, so that what was seen before a crash stays.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from observe import Cases, Package, Seen

MODULES = (
    "cases_config",
    "cases_descriptors",
    "cases_memory",
    "cases_lists",
    "cases_transfers",
    "cases_notifications",
    "cases_metadata",
    "cases_listener",
    "cases_bindings",
)


def all_cases() -> Cases:
    """Every case by the name `module:function`, in the order of the files."""
    cases: Cases = {}
    for module in MODULES:
        for name, value in vars(importlib.import_module(module)).items():
            if name.startswith("case_"):
                cases[f"{module[6:]}:{name[5:]}"] = value
    return cases


def main() -> None:
    faulthandler.enable()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    package = Package(importlib.import_module("nixl_cu12"))
    cases = all_cases()
    with open(sys.argv[2], "w", encoding="ascii") as lines:

        def say(**line: object) -> None:
            lines.write(json.dumps(line) + "\n")
            lines.flush()

        Seen.looking = staticmethod(lambda label: say(looking=label))
        Seen.skipped = frozenset(job["skipped"])
        Seen.dares = job["dares"]
        for name in job["cases"] or cases:
            print(f"-- {name}", file=sys.stderr, flush=True)
            Seen.case = name
            say(begun=name)
            try:
                say(ended=name, seen=cases[name](package).results)
            except Exception:
                say(ended=name, broken=traceback.format_exc())
        say(all=True, cases=list(cases))
    # Real agents crash at exit on some machines; what was seen is on disk.
    os._exit(0)


if __name__ == "__main__":
    main()
