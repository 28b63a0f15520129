"""What the tests of the NIXL drop-in are written in: agents, and processes with one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np

from kvx.dropin import FOLDER

HERE = Path(__file__).parent
# What only a hang reaches.
PATIENCE_S = 60.0


class Memory:
    """A buffer with an address."""

    def __init__(self, size: int, fill: int = 0) -> None:
        self.array = np.full(size, fill, dtype=np.uint8)
        self.address = int(self.array.ctypes.data)
        self.size = size

    def row(self) -> list[tuple[int, int, int, str]]:
        """All of it, to be registered."""
        return [(self.address, self.size, 0, "")]

    def table(self, *places: tuple[int, int]) -> np.ndarray[Any, Any]:
        """Rows of (address, length, device) for (offset, length)."""
        rows = [(self.address + offset, length, 0) for offset, length in places]
        return np.array(rows, dtype=np.uint64).reshape(len(rows), 3)


class Agents:
    """Makes agents that live as long as the test."""

    def __init__(self, nixl: Any) -> None:
        self.nixl = nixl
        self._kept: list[Any] = []

    def __call__(self, name: str, **config: Any) -> Any:
        agent = self.nixl.nixl_agent(name, self.nixl.nixl_agent_config(**config))
        self._kept.append(agent)
        return agent

    def memory(self, agent: Any, size: int = 1 << 16, fill: int = 0) -> Memory:
        """Memory registered with an agent."""
        memory = Memory(size, fill)
        self._kept.append(memory)
        agent.register_memory(memory.row(), "DRAM")
        return memory

    def forget(self, agent: Any) -> None:
        """Lets go of an agent."""
        self._kept = [kept for kept in self._kept if kept is not agent]


class Pair:
    """Agents `one` and `two` with memory; `one` has added `two`."""

    def __init__(self, agents: Agents, size: int = 1 << 16, **config: Any) -> None:
        self.agents = agents
        self.one, self.two = agents("one", **config), agents("two", **config)
        self.mine = agents.memory(self.one, size, 1)
        self.theirs = agents.memory(self.two, size, 2)
        self.one.add_remote_agent(self.two.get_agent_metadata())

    def sides(self, *places: tuple[int, int]) -> tuple[Any, Any]:
        """Prepared lists of both sides, seen from `one`."""
        places = places or ((0, 64),)
        local = self.one.prep_xfer_dlist("", self.mine.table(*places), "DRAM")
        remote = self.one.prep_xfer_dlist("two", self.theirs.table(*places), "DRAM")
        return local, remote

    def whole(self, op: str = "WRITE", notif: bytes = b"") -> Any:
        """A transfer of all memory."""
        local, remote = self.sides((0, self.mine.size))
        return self.one.make_prepped_xfer(op, local, [0], remote, [0], notif)


def until(true: Callable[[], object], what: str = "it") -> None:
    """Waits for something to become true."""
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit, f"{what} does not happen"
        time.sleep(0.002)


def finished(agent: Any, handle: Any) -> None:
    """Waits until a posted transfer is done; raises what it failed with."""
    until(lambda: agent.check_xfer_state(handle) == "DONE", "the transfer's end")


def moved(agent: Any, handle: Any, *notif: Any) -> None:
    """Posts a transfer and waits until it is done."""
    agent.transfer(handle, *notif)
    finished(agent, handle)


def arrived(agent: Any, count: int = 1) -> dict[str, list[bytes]]:
    """Takes notifications until so many have come."""
    got: dict[str, list[bytes]] = {}

    def take() -> bool:
        for name, messages in agent.get_new_notifs().items():
            got.setdefault(name, []).extend(messages)
        return sum(map(len, got.values())) >= count

    until(take, f"the {count}th notification")
    return got


def failure(agent: Any, handle: Any, *notif: Any) -> Exception:
    """Posts a transfer and returns what it fails with."""
    try:
        moved(agent, handle, *notif)
    except Exception as error:
        return error
    raise AssertionError("the transfer does not fail")


class Worker:
    """A process with an agent, which does what it is told by `nixl_worker.py`'s words."""

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nixl_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": FOLDER, **environment},
            text=True,
        )

    def __call__(self, do: str, **arguments: Any) -> Any:
        """Has it do something, and returns what came of it."""
        self.tell(do, **arguments)
        return self.answer()

    def tell(self, do: str, **arguments: Any) -> None:
        """Has it do something, without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What came of what it was told."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the worker ended with {self._process.wait(PATIENCE_S)}"
        said = json.loads(line)
        assert "failed" not in said, said["failed"]
        return said["value"]

    def agent(self, name: str, **config: Any) -> None:
        """Makes its agent."""
        self("agent", name=name, config=config)

    def metadata(self) -> bytes:
        return bytes.fromhex(self("metadata"))

    def stop(self) -> None:
        """Stops it, as a debugger does; none of its threads runs any more when this returns."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def end(self) -> int:
        """Ends it in good order; its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(PATIENCE_S)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
