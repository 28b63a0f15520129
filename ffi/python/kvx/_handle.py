"""Handles of the library, held by Python objects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable


class Handle:
    """An object that stands for a handle, and lets go of it when it is let go of itself.

    The library never gives a handle twice: one that was released is an error, never another thing.
    """

    __slots__ = ("__weakref__", "_handle", "_release")

    def __init__(self, handle: int, release: Callable[[int], int]) -> None:
        self._handle = handle
        self._release = release

    def _let_go(self) -> int:
        """The handle, which this object then has no more; 0 if it had none."""
        held, self._handle = self._handle, 0
        return held

    @contextlib.contextmanager
    def _ending(self) -> Iterator[int]:
        """The handle, for a call that ends it: it stays this object's if the call is refused."""
        held = self._let_go()
        try:
            yield held
        except BaseException:
            self._handle = held or self._handle
            raise

    def release(self) -> None:
        """Lets go of it; what was begun with it goes on. Once more does nothing."""
        held = self._let_go()
        if held:
            self._release(held)

    def __del__(self) -> None:
        # Without one if `__init__` was not come to.
        held = getattr(self, "_handle", 0)
        if held:
            self._release(held)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
