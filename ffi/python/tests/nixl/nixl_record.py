"""Runs all cases of one package in processes of their own, and goes on after a crash.

python nixl_record.py INTERPRETER OUT.json [MODULE:CASE ...] [--path FOLDERS]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUN = Path(__file__).parent / "comparison" / "run.py"

Record = dict[str, dict[str, Any]]


def record(
    interpreter: str, path: str | None, cases: list[str] | None = None, log: Any = None
) -> Record:
    """What each case saw: results by case and label.

    With `path`, that folder comes first on sys.path, and the package found there is trusted with
    what reads memory at random elsewhere.
    """
    environment = dict(os.environ)
    # Where Debian's ibverbs-providers is installed, UCX crashes otherwise.
    environment.setdefault("UCX_MODULES", "^efa")
    environment.pop("NIXL_ETCD_ENDPOINTS", None)
    if path is not None:
        environment["PYTHONPATH"] = path
    found: Record = {}
    job: dict[str, Any] = {"cases": cases or [], "skipped": [], "dares": path is not None}
    with tempfile.TemporaryDirectory() as folder:
        inputs, out = Path(folder, "job.json"), Path(folder, "out.jsonl")
        while True:
            inputs.write_text(json.dumps(job), encoding="ascii")
            command = [interpreter, str(RUN), str(inputs), str(out)]
            ended = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
            lines = [json.loads(line) for line in out.read_text(encoding="ascii").splitlines()]
            begun, looking = "", None
            for line in lines:
                if "begun" in line:
                    begun, looking = line["begun"], None
                elif "looking" in line:
                    looking = line["looking"]
                elif "ended" in line:
                    if "broken" in line:
                        raise RuntimeError(f"{begun} is broken: {line['broken']}")
                    found[begun] = line["seen"]
                elif "all" in line:
                    return found
            if not begun or looking is None:
                raise RuntimeError(f"{RUN} ended early with {ended.returncode} at {begun}")
            job["skipped"].append(f"{begun}:{looking}")
            wanted = cases or names(interpreter, environment)
            job["cases"] = wanted[wanted.index(begun) :]


def names(interpreter: str, environment: dict[str, str]) -> list[str]:
    """All cases in order, from a process in which nothing has crashed yet."""
    code = "import run, json; print(json.dumps(list(run.all_cases())))"
    listed = subprocess.run(
        [interpreter, "-c", code],
        env=environment,
        cwd=RUN.parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(listed.stdout)
    assert isinstance(found, list)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("interpreter")
    parser.add_argument("out")
    parser.add_argument("--path")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    found = record(options.interpreter, options.path, options.cases, sys.stderr)
    Path(options.out).write_text(json.dumps(found, indent=1), encoding="ascii")


if __name__ == "__main__":
    main()
