"""The installed mooncake behind the drop-in: its submodules and what its package exports."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

_NAME = "mooncake"


def search_path(own: list[str]) -> list[str]:
    """Where submodules are looked for: in the drop-in first, then where one is installed."""
    return [*own, *(place for place in _installed() if place not in own)]


def attribute(name: str) -> Any:
    """What the package itself exports, of which the drop-in has nothing."""
    package = sys.modules[_NAME]
    # Asked before a submodule is imported: the installed package need not be run for that.
    is_submodule = PathFinder.find_spec(f"{_NAME}.{name}", list(package.__path__)) is not None
    if not (name.startswith("__") or is_submodule):
        behind = _behind()
        if hasattr(behind, name):
            return getattr(behind, name)
    raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")


@functools.cache
def _behind() -> ModuleType | None:
    """The installed package, run once, as a module that nobody else has."""
    for place in _installed():
        file = os.path.join(place, "__init__.py")
        spec = importlib.util.spec_from_file_location(_NAME, file)
        if os.path.isfile(file) and spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            module.__path__ = list(sys.modules[_NAME].__path__)
            spec.loader.exec_module(module)
            return module
    return None


def _installed() -> list[str]:
    """The folders of every other package of the name."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "path")
    elsewhere = [place for place in sys.path if not _is_same(place, here)]
    specs = [PathFinder.find_spec(_NAME, [place]) for place in elsewhere]
    # An installation that refers to its sources may have a finder of its own.
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and finder is not PathFinder:
            specs.append(find(_NAME, None, None))
    places = [place for spec in specs if spec for place in spec.submodule_search_locations or ()]
    own = os.path.join(here, _NAME)
    return list(dict.fromkeys(place for place in places if not _is_same(place, own)))


def _is_same(one: str, other: str) -> bool:
    return os.path.realpath(one or os.curdir) == os.path.realpath(other)
