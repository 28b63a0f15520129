"""What the tests of the NIXL drop-in share: the drop-in itself, agents, and processes with one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from nixl_agents import Agents, Pair, Worker

from kvx.dropin import FOLDER

HERE = Path(__file__).parent
# What only a hang reaches.
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that the environment does not change, and that listen on loopback."""
    for name in list(os.environ):
        if name.startswith(("NIXL_", "UCX_")) or (
            name.startswith("KVX_") and not name.startswith("KVX_TEST_")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KVX_BIND", "127.0.0.1")
    monkeypatch.setenv("NIXL_LOG_LEVEL", "ERROR")


@pytest.fixture
def nixl(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package `nixl` of the drop-in."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("nixl")


@pytest.fixture
def agents(nixl: Any) -> Agents:
    return Agents(nixl)


@pytest.fixture
def make_pair(agents: Agents) -> Callable[..., Pair]:
    return lambda *size, **config: Pair(agents, *size, **config)


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    """Starts workers, which end with the test."""
    started: list[Worker] = []

    def start(**environment: str) -> Worker:
        started.append(Worker(**environment))
        return started[-1]

    yield start
    for each in started:
        each.close()
