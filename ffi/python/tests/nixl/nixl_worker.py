"""A process with an agent of the drop-in, told over its standard input what to do: a line of JSON
for each command, a line of JSON for each answer. Not a test."""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import time
import traceback
from typing import Any

from nixl._api import nixl_agent, nixl_agent_config


class Words:
    """What it can be told."""

    def __init__(self) -> None:
        self.agent: Any = None
        self.maps: list[mmap.mmap | None] = []
        self.places: list[tuple[int, int]] = []
        self.registered: list[Any] = []
        self.handles: list[Any] = []

    def do_agent(self, name: str, config: dict[str, Any]) -> None:
        self.agent = nixl_agent(name, nixl_agent_config(**config))

    def do_memory(self, size: int, fill: int = 0, register: bool = True) -> list[int]:
        """Maps memory; its number and its address."""
        mapped = mmap.mmap(-1, size)
        mapped[:] = bytes([fill]) * size
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        self.maps.append(mapped)
        self.places.append((address, size))
        self.registered.append(None)
        if register:
            self.registered[-1] = self.agent.register_memory([(address, size, 0, "")], "DRAM")
        return [len(self.maps) - 1, address]

    def do_free(self, memory: int) -> None:
        """Deregisters memory and gives it back to the system."""
        self.agent.deregister_memory(self.registered[memory])
        address, size = self.places[memory]
        libc = ctypes.CDLL(None, use_errno=True)
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        assert libc.munmap(address, size) == 0

    def do_deregister(self, memory: int) -> None:
        self.agent.deregister_memory(self.registered[memory])

    def do_count(self, memory: int, byte: int) -> int:
        """How many bytes of memory have this value."""
        mapped = self.maps[memory]
        assert mapped is not None
        return mapped[:].count(byte)

    def do_metadata(self) -> str:
        return str(self.agent.get_agent_metadata().hex())

    def do_add(self, metadata: str) -> str:
        return str(self.agent.add_remote_agent(bytes.fromhex(metadata)).decode())

    def do_prepare(
        self, op: str, memory: int, agent: str, address: int, size: int, notif: str = ""
    ) -> int:
        """Makes a transfer of `size` bytes; its number."""
        place, _ = self.places[memory]
        local = self.agent.get_xfer_descs([(place, size, 0)], "DRAM")
        remote = self.agent.get_xfer_descs([(address, size, 0)], "DRAM")
        handle = self.agent.initialize_xfer(op, local, remote, agent, notif.encode())
        self.handles.append(handle)
        return len(self.handles) - 1

    def do_post(self, handle: int) -> str:
        return str(self.agent.transfer(self.handles[handle]))

    def do_notify(self, agent: str, message: str) -> None:
        self.agent.send_notif(agent, message.encode())

    def do_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def do_notifs(self, count: int) -> dict[str, list[str]]:
        """Takes notifications until so many have come."""
        got: dict[str, list[str]] = {}
        limit = time.monotonic() + 60
        while sum(map(len, got.values())) < count and time.monotonic() < limit:
            for name, messages in self.agent.get_new_notifs().items():
                got.setdefault(name, []).extend(message.decode() for message in messages)
            time.sleep(0.002)
        return got


def main() -> None:
    words = Words()
    for line in sys.stdin:
        told = json.loads(line)
        try:
            answer = {"value": getattr(words, f"do_{told.pop('do')}")(**told)}
        except Exception:
            answer = {"failed": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
