"""What all tests of the package share: engines that the environment does not change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import kvx


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tells whoever runs the tests what came of each, and why it was skipped, a line a test."""
    log = os.environ.get("KVX_TEST_LOG")
    if not log or (report.when != "call" and report.passed):
        return
    reason = ""
    if report.skipped:
        told: Any = report.longrepr
        reason = str(told[2] if isinstance(told, tuple) else told).replace("\n", " ")
    with open(log, "a", encoding="utf-8") as lines:
        lines.write(f"{report.outcome}\t{report.nodeid}\t{reason}\n")


@pytest.fixture
def make_engine() -> Iterator[Callable[..., kvx.Engine]]:
    """Makes engines on loopback, closed at the end of the test."""
    made: list[kvx.Engine] = []

    def make(name: str | None = None, **options: Any) -> kvx.Engine:
        options = {"log": "kvx=error", "environment": False, **options}
        engine = kvx.Engine(name, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


class Pair:
    """Two engines, the first of which knows the second and a region of it."""

    def __init__(self, make: Callable[..., kvx.Engine], length: int) -> None:
        self.a, self.b = make("a"), make("b")
        self.source = self.a.allocate(length, kvx.Rights.NONE)
        self.target = self.b.allocate(length)
        self.peer = self.a.add_peer(self.b.metadata([self.target]))


@pytest.fixture
def pair(make_engine: Callable[..., kvx.Engine]) -> Pair:
    return Pair(make_engine, 1 << 16)
