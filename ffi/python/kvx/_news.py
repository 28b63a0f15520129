"""What is new at an engine, for event loops: they sleep until its event descriptor is readable."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from kvx._call import check, ffi, lib

if TYPE_CHECKING:
    from kvx.operation import Operation

_Waiter = tuple["asyncio.Future[None]", "Operation[Any] | None"]


class News:
    """Wakes what awaits an engine's operations and notifications, in any number of event loops.

    Whichever loop is first to read the descriptor wakes what waits in the others, too.
    """

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, list[_Waiter]] = {}

    async def ended(self, operation: Operation[Any]) -> None:
        """Returns when the operation has ended."""
        await self._wait(operation)

    async def heard(self) -> None:
        """Returns when the engine's next notification is there, and at other news, too."""
        await self._wait(None)

    async def _wait(self, operation: Operation[Any] | None) -> None:
        loop = asyncio.get_running_loop()
        descriptor = self._descriptor()
        waiter: _Waiter = (loop.create_future(), operation)
        with self._lock:
            waiting = self._waiting.setdefault(loop, [])
            waiting.append(waiter)
            if len(waiting) == 1:
                loop.add_reader(descriptor, self._read, descriptor)
        try:
            # It may have ended before anybody listened.
            if operation is None or not operation.done:
                await waiter[0]
        finally:
            with self._lock:
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[loop]
                    loop.remove_reader(descriptor)

    def _descriptor(self) -> int:
        out = ffi.new("int32_t *")
        check(lib.kvx_engine_event_descriptor(self._engine, out))
        return int(out[0])

    def _read(self, descriptor: int) -> None:
        # Another loop may have been faster.
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 8)
        with self._lock:
            loops = [(loop, list(waiting)) for loop, waiting in self._waiting.items()]
        for loop, waiting in loops:
            ended = [future for future, operation in waiting if operation is None or operation.done]
            if ended:
                # A loop that was closed has nobody who waits.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_wake, ended)


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
