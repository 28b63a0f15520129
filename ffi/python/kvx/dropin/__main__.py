"""`python -m kvx.dropin`: where the drop-ins lie, and whether they are what would be imported."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from importlib.machinery import PathFinder

from kvx.dropin import FOLDER

MODULES = ("nixl", "nixl_cu12", "nixl_cu13", "mooncake.engine")
"""What the drop-ins stand in for."""


def main() -> None:
    """Prints the folder alone (`--path`, for scripts), or the report."""
    parser = argparse.ArgumentParser(prog="python -m kvx.dropin", description=__doc__)
    parser.add_argument("--path", action="store_true", help="print the folder for PYTHONPATH alone")
    if parser.parse_args().path:
        print(FOLDER)
        return
    for line in report():
        print(line)


def report() -> list[str]:
    """The folder, what is set, and what each module would be imported from."""
    return [
        f"folder for PYTHONPATH: {FOLDER}",
        f"KVX_DROP_IN: {os.environ.get('KVX_DROP_IN') or '(not set)'}; the hook that reads it "
        + ("has run" if sys.modules.get("_kvx_dropin") else "has not run"),
        *(f"{module}: {described(module)}" for module in MODULES),
    ]


def described(module: str) -> str:
    """Whose this module is, and where it lies."""
    place = origin(module)
    if place is None:
        return "not found"
    own = os.path.realpath(place).startswith(os.path.realpath(FOLDER) + os.sep)
    return f"{'kvx' if own else 'not kvx'}, from {place}"


def origin(module: str) -> str | None:
    """The file that `import module` would run. Nothing is imported to find out."""
    top, _, rest = module.partition(".")
    spec = importlib.util.find_spec(top)
    if spec is not None and rest:
        spec = PathFinder.find_spec(module, list(spec.submodule_search_locations or ()))
    return None if spec is None else spec.origin or str(spec.submodule_search_locations)


if __name__ == "__main__":
    main()
