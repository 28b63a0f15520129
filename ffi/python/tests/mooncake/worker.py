"""A process with one `mooncake.engine`, whoever's it is, that does what lines on stdin say.

It knows nothing of kvx: the same file runs in the interpreter of the real package. A line is a JSON
object; the answer is one on stdout. Values that JSON lacks are objects of one entry whose name
begins with `$`.
"""

from __future__ import annotations

import ctypes
import functools
import json
import mmap
import os
import random
import sys
import threading
from typing import Any, Callable

import objects

KEPT: list[object] = []


class Worker:
    """Engines and buffers by name."""

    def __init__(self) -> None:
        self.module: Any = None
        self.engines: dict[str, Any] = {}
        self.buffers: dict[str, mmap.mmap] = {}
        self.threads: dict[str, tuple[threading.Thread, dict[str, Any]]] = {}

    def do_import(self) -> str:
        import mooncake.engine

        self.module = mooncake.engine
        return str(mooncake.engine.__file__)

    def do_import_error(self) -> str:
        return str(outcome(self.do_import).get("text"))

    def do_new(self, engine: str = "e") -> None:
        self.engines[engine] = self.module.TransferEngine()

    def do_drop(self, engine: str = "e") -> None:
        del self.engines[engine]

    def do_call(
        self, method: str, args: list[Any], kwargs: dict[str, Any], engine: str = "e"
    ) -> Any:
        keywords = {name: self.decode(value) for name, value in kwargs.items()}
        bound = getattr(self.engines[engine], method)
        return self.encode(bound(*[self.decode(value) for value in args], **keywords))

    def do_begin(self, thread: str, **call: Any) -> None:
        """A call on a thread of its own; `join` has its outcome."""
        box: dict[str, Any] = {}
        runner = threading.Thread(
            target=lambda: box.update(outcome(lambda: self.do_call(**call))), daemon=True
        )
        self.threads[thread] = (runner, box)
        runner.start()

    def do_join(self, thread: str, timeout: float) -> Any:
        runner, box = self.threads[thread]
        runner.join(timeout)
        return "under way" if runner.is_alive() else box

    def do_cpu(self) -> float:
        """Seconds that this process has computed."""
        times = os.times()
        return times.user + times.system

    def do_buffer(self, name: str, length: int, fill: int = 0) -> int:
        memory = mmap.mmap(-1, length)
        memory.write(bytes([fill]) * length)
        self.buffers[name] = memory
        return address_of(memory)

    def do_take_away(self, name: str) -> None:
        """No access to the buffer any more, as if unmapped; but nothing else takes its place."""
        memory = self.buffers.pop(name)
        libc = ctypes.CDLL(None)
        where, length = ctypes.c_void_p(address_of(memory)), ctypes.c_size_t(len(memory))
        assert libc.mprotect(where, length, 0) == 0
        # Its end would touch it.
        KEPT.append(memory)

    def do_write(self, name: str, offset: int, data: str) -> None:
        raw = bytes.fromhex(data)
        self.buffers[name][offset : offset + len(raw)] = raw

    def do_pattern(self, name: str, seed: int) -> None:
        """Fills a buffer with bytes that follow from the seed and the place."""
        memory = self.buffers[name]
        memory[:] = pattern(seed, len(memory))

    def do_check(self, name: str, seed: int) -> bool:
        """Whether a buffer is full of that pattern."""
        return self.buffers[name][:] == pattern(seed, len(self.buffers[name]))

    def do_read(self, name: str, offset: int, length: int) -> str:
        return self.buffers[name][offset : offset + length].hex()

    def do_ask(self, name: str) -> Any:
        return self.encode(objects.CHECKS[name](self.module))

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        return getattr(self, "decode_" + kind[1:])(inner)

    def decode_at(self, place: tuple[str, int]) -> int:
        name, offset = place
        return address_of(self.buffers[name]) + offset

    def decode_bytes(self, raw: str) -> bytes:
        return bytes.fromhex(raw)

    def decode_op(self, name: str) -> Any:
        return getattr(self.module.TransferOpcode, name)

    def decode_notify(self, texts: list[Any]) -> Any:
        return self.module.TransferNotify(*[self.decode(text) for text in texts])

    def decode_text(self, part: tuple[str, int]) -> str:
        text, times = part
        return text * times

    def decode_range(self, part: tuple[int, int, int]) -> list[int]:
        """`count` numbers from `first` on, `step` apart."""
        first, count, step = part
        return [first + index * step for index in range(count)]

    def decode_number(self, name: str) -> Any:
        return objects.NUMBERS[name]()

    def decode_str(self, name: str) -> Any:
        return objects.TEXTS[name]()

    def decode_list(self, name: str) -> Any:
        return objects.LISTS[name]()

    def encode(self, value: Any) -> Any:
        if self.module is not None and isinstance(value, self.module.TransferNotify):
            return {"name": value.name, "msg": value.msg}
        if isinstance(value, (list, tuple)):
            return [self.encode(item) for item in value]
        if isinstance(value, bytes):
            return {"$bytes": value.hex()}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return {"type": type(value).__name__}


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def pattern(seed: int, length: int) -> bytes:
    piece = random.Random(seed).randbytes(min(length, 65537))
    return (piece * (length // len(piece) + 1))[:length]


def outcome(run: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": run()}
    except Exception as error:
        return {"raises": type(error).__name__, "text": str(error)}


def main() -> None:
    """Answers until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    # What a library prints must not come between the answers.
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        method = getattr(worker, "do_" + order.pop("do"))
        print(json.dumps(outcome(functools.partial(method, **order))), file=answers, flush=True)


if __name__ == "__main__":
    main()
