"""What a case saw: values and exceptions, written down so that two packages can be compared.

Knows nothing of any case.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

# What only a hang reaches.
PATIENCE_S = 60.0

Cases = dict[str, Callable[["Package"], "Seen"]]


class Package:
    """The modules of one package that offers NIXL's names."""

    def __init__(self, root: ModuleType) -> None:
        import importlib

        self.root = root
        self.api: Any = importlib.import_module(root.__name__ + "._api")
        self.bindings: Any = importlib.import_module(root.__name__ + "._bindings")
        self.utils: Any = importlib.import_module(root.__name__ + "._utils")
        self.logging: Any = importlib.import_module(root.__name__ + ".logging")
        self._keep: list[object] = []

    def agent(self, name: str, **config: Any) -> Any:
        return self.api.nixl_agent(name, self.api.nixl_agent_config(**config))

    def memory(self, size: int = 1 << 16, fill: int = 0) -> Memory:
        """Memory that outlives the case: real agents have it registered until they go."""
        memory = Memory(size, fill)
        self._keep.append(memory)
        return memory

    def pair(self, **config: Any) -> Pair:
        """Two agents that know each other, each with memory registered."""
        return Pair(self, **config)


class Memory:
    """A buffer with an address."""

    def __init__(self, size: int, fill: int = 0) -> None:
        self.array = np.full(size, fill, dtype=np.uint8)
        self.address = int(self.array.ctypes.data)
        self.size = size

    def table(self, *places: tuple[int, int], device: int = 0) -> np.ndarray[Any, Any]:
        """Rows of (address, length, device) for (offset, length)."""
        rows = [(self.address + offset, length, device) for offset, length in places]
        return np.array(rows, dtype=np.uint64).reshape(len(rows), 3)

    def rows(self, *places: tuple[int, int], device: int = 0) -> list[tuple[int, int, int]]:
        return [(self.address + offset, length, device) for offset, length in places]


class Pair:
    """Agents `one` and `two`, each with registered memory, that have added each other."""

    def __init__(self, package: Package, **config: Any) -> None:
        self.package = package
        self.one = package.agent("one", **config)
        self.two = package.agent("two", **config)
        self.mine = package.memory(fill=1)
        self.theirs = package.memory(fill=2)
        for agent, memory in ((self.one, self.mine), (self.two, self.theirs)):
            agent.register_memory([(memory.address, memory.size, 0, "")], "DRAM")
        self.one.add_remote_agent(self.two.get_agent_metadata())
        self.two.add_remote_agent(self.one.get_agent_metadata())

    def sides(self, count: int = 4, size: int = 64) -> tuple[Any, Any]:
        """Prepared lists of `count` blocks of both sides, seen from `one`."""
        places = [(index * 2 * size, size) for index in range(count)]
        local = self.one.prep_xfer_dlist("", self.mine.table(*places), "DRAM")
        remote = self.one.prep_xfer_dlist("two", self.theirs.table(*places), "DRAM")
        return local, remote


class Seen:
    """Labelled observations of one case."""

    # What is told before each look: a crash is then known by its label.
    looking: Callable[[str], None] = staticmethod(lambda label: None)
    # Labels not to look at: `module:case:label`.
    skipped: frozenset[str] = frozenset()
    # Whether looks are made that the other package's memory is not safe from.
    dares = True
    # The case that runs.
    case = ""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}

    def daring(self, label: str, look: Callable[[], object]) -> object:
        """As a call, for what reads or frees memory at random in a package without checks."""
        if not Seen.dares:
            self.results[label] = {"undefined": True}
            return None
        return self(label, look)

    def __call__(self, label: str, look: Callable[[], object]) -> object:
        """Runs `look` and writes down what came of it; hands its value on (None if it raised)."""
        if label in self.results:
            raise RuntimeError(f"{label} was seen before")
        if f"{Seen.case}:{label}" in Seen.skipped:
            self.results[label] = {"crashes": True}
            return None
        Seen.looking(label)
        try:
            value = look()
        except Exception as error:  # what it raises is what is compared
            self.results[label] = {"raises": type(error).__name__}
            return None
        self.results[label] = {"gives": written(value)}
        return value


def written(value: object) -> Any:
    """A value in the words of JSON: its type, and what it holds."""
    kind = type(value).__name__
    if value is None or (isinstance(value, (bool, str)) and type(value) in (bool, str)):
        return value
    if type(value) is int:
        return value
    if isinstance(value, bytes):
        return {kind: value.hex()}
    if isinstance(value, (list, tuple)):
        return {kind: [written(item) for item in value]}
    if isinstance(value, dict):
        items = {str(key): written(item) for key, item in value.items()}
        return {kind: dict(sorted(items.items()))}
    if isinstance(value, np.ndarray):
        return {kind: [str(value.dtype), value.tolist()]}
    if kind in ("nixlXferDList", "nixlRegDList", "nixlRemoteDList"):
        dlist: Any = value
        items_ = [written(dlist[index]) for index in range(dlist.descCount())]
        return {kind: [str(dlist.getType()), items_]}
    if isinstance(value, enum.Enum) or hasattr(value, "__members__"):
        return {kind: str(value)}
    return {"instance": kind}


def finished(agent: Any, handle: Any) -> str:
    """Polls a posted transfer until it is done."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        state = agent.check_xfer_state(handle)
        if state != "PROC":
            return str(state)
        time.sleep(0.0005)
    raise TimeoutError("the transfer does not end")


def moved(agent: Any, handle: Any, *notif: Any) -> str:
    """Posts a transfer and waits until it is done."""
    state = agent.transfer(handle, *notif)
    return "DONE" if state == "DONE" else finished(agent, handle)


def arrived(agent: Any, count: int = 1, also: Any = None) -> dict[str, list[bytes]]:
    """Takes notifications until `count` have come. `also` is polled meanwhile, for agents that
    send only then."""
    limit = time.monotonic() + PATIENCE_S
    got: dict[str, list[bytes]] = {}
    while sum(map(len, got.values())) < count:
        if time.monotonic() > limit:
            raise TimeoutError(f"only {got} came")
        for name, messages in agent.get_new_notifs().items():
            got.setdefault(name, []).extend(messages)
        if also is not None:
            also.get_new_notifs()
        time.sleep(0.0005)
    return got


def until(true: Callable[[], object]) -> bool:
    """Waits for something to become true."""
    limit = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > limit:
            return False
        time.sleep(0.002)
    return True
