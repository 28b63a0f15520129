"""Transfers that were begun and not asked for yet, by number. Numbers are never used again."""

from __future__ import annotations

import threading
from collections import OrderedDict

from kvx.dropin.mooncake.transfers import Outcome, Running

# Of what nobody asks for, so many outcomes are kept.
_KEPT = 65_536
# Batches that each new one looks at: they may hold memory registered that is no longer needed.
_LOOKED_AT = 4


class Batches:
    """The batches of one engine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._running: OrderedDict[int, Running] = OrderedDict()
        self._ended: OrderedDict[int, Outcome] = OrderedDict()

    def add(self, running: Running | None) -> int:
        """The number for this transfer; `None` is one that has nothing to do."""
        with self._lock:
            self._last += 1
            number = self._last
            if running is None:
                self._end(number, Outcome.DONE)
            else:
                self._running[number] = running
        self._sweep()
        return number

    def poll(self, number: int) -> Outcome | None:
        """What came of it; `None`: it is under way, or the number is none (see `has`)."""
        with self._lock:
            running, outcome = self._running.get(number), self._ended.get(number)
        return outcome if running is None else running.poll()

    def has(self, number: int) -> bool:
        """Whether the number stands for anything."""
        with self._lock:
            return number in self._running or number in self._ended

    def take(self, number: int) -> Running | Outcome | None:
        """What it stands for, and from now on stands for no more; `None`: nothing."""
        with self._lock:
            running = self._running.pop(number, None)
            return self._ended.pop(number, None) if running is None else running

    def _sweep(self) -> None:
        for _ in range(_LOOKED_AT):
            with self._lock:
                if not self._running:
                    return
                number, running = next(iter(self._running.items()))
                self._running.move_to_end(number)
            outcome = running.poll()
            if outcome is not None:
                with self._lock:
                    if self._running.pop(number, None) is not None:
                        self._end(number, outcome)

    def _end(self, number: int, outcome: Outcome) -> None:
        self._ended[number] = outcome
        while len(self._ended) > _KEPT:
            self._ended.popitem(last=False)
