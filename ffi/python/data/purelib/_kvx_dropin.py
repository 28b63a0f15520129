"""Makes kvx's drop-ins found before the packages whose place they take, as `KVX_DROP_IN` says.

Imported by `kvx_dropin.pth` while the interpreter starts, if the variable is set. Not part of the
package `kvx`, which it does not import: what is not used costs nothing, and whatever is wrong with
kvx shows when a drop-in is imported, not in every interpreter.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes its time to load.
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

VARIABLE = "KVX_DROP_IN"

PACKAGES = {
    "mooncake": ("mooncake",),
    "nixl": ("nixl", "nixl_cu12", "nixl_cu13"),
}
"""What can be named, and the top-level packages that are then kvx's."""


class Finder:
    """Finds the chosen packages in kvx's folder, whatever else lies on `sys.path`."""

    def __init__(self, folder: str, packages: frozenset[str]) -> None:
        self.folder = folder
        self.packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by the import system. Submodules are found by the path of their package."""
        if path is not None or name not in self.packages:
            return None
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [self.folder], target)


def activate(setting: str) -> None:
    """Puts what `setting` names before everything else; what it cannot, it says on stderr."""
    names = [name.strip() for name in setting.split(",") if name.strip()]
    unknown = [name for name in names if name not in PACKAGES]
    if unknown:
        known = ", ".join(sorted(PACKAGES))
        warn(f"{VARIABLE}: unknown: {', '.join(unknown)}; allowed, with commas between: {known}")
    packages = frozenset(package for name in names for package in PACKAGES.get(name, ()))
    if not packages:
        return
    folder = find_folder()
    if folder is None:
        warn(f"{VARIABLE} has no effect: the package kvx is not there")
        return
    sys.meta_path.insert(0, Finder(folder, packages))


def find_folder() -> str | None:
    """Where the drop-ins lie: in the kvx beside this file, else in the one that would be imported,
    as for an installation that refers to its sources."""
    from importlib.machinery import PathFinder

    places = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "kvx")]
    spec = PathFinder.find_spec("kvx")
    if spec is not None and spec.submodule_search_locations is not None:
        places.extend(spec.submodule_search_locations)
    folders = (os.path.join(place, "dropin", "path") for place in places)
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def warn(message: str) -> None:
    """One line on stderr, if there is one."""
    if sys.stderr is not None:
        print(f"kvx: {message}", file=sys.stderr)


activate(os.environ.get(VARIABLE, ""))
