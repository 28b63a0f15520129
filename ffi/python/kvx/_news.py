"""What is new at an engine, for event loops: they sleep until its event descriptor is readable."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from kvx._call import check, ffi, lib

if TYPE_CHECKING:
    from kvx.operation import Operation

    _Waiter = tuple["asyncio.Future[None]", Optional[Operation[Any]]]


class _Waiting(NamedTuple):
    """What waits in one event loop."""

    #: What the loop watches: a duplicate, for the engine closes its own when it is closed.
    descriptor: int
    waiters: list[_Waiter]


class News:
    """Wakes what awaits an engine's operations and notifications, in any number of event loops.

    Whichever loop is first to read the descriptor wakes what waits in the others, too.

    There is no lock, which garbage collection, ending what was awaited in a loop that is no more,
    would find held by its own thread. What waits in a loop is changed by that loop alone; others
    look at copies.
    """

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self._waiting: dict[asyncio.AbstractEventLoop, _Waiting] = {}

    async def ended(self, operation: Operation[Any]) -> None:
        """Returns when the operation has ended, or was released."""
        await self._wait(operation)

    async def heard(self) -> None:
        """Returns when the engine's next notification is there, and at other news, too.

        Raises:
            UnknownHandleError: the engine was closed.
        """
        await self._wait(None)

    async def _wait(self, operation: Operation[Any] | None) -> None:
        loop = asyncio.get_running_loop()
        waiter: _Waiter = (loop.create_future(), operation)
        waiting = self._waiting.get(loop) or self._watched_by(loop)
        waiting.waiters.append(waiter)
        try:
            # What came before anybody listened rings for nobody, or has rung for others.
            if operation is None:
                self._listen()
            if operation is None or not operation._is_over():
                await waiter[0]
        finally:
            waiting.waiters.remove(waiter)
            if not waiting.waiters:
                self._forget(loop)

    def _watched_by(self, loop: asyncio.AbstractEventLoop) -> _Waiting:
        descriptor = os.dup(self._listen())
        try:
            # Had the engine been closed meanwhile, it would be a duplicate of anything.
            self._listen()
            loop.add_reader(descriptor, self._read, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        waiting = self._waiting[loop] = _Waiting(descriptor, [])
        return waiting

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting.pop(loop, None)
        if waiting is not None:
            if not loop.is_closed():
                loop.remove_reader(waiting.descriptor)
            os.close(waiting.descriptor)

    def _listen(self) -> int:
        """The engine's descriptor; also becomes readable when a notification is there, or comes."""
        out = ffi.new("int32_t *")
        check(lib.kvx_engine_event_descriptor(self._engine, out))
        return int(out[0])

    def _read(self, descriptor: int) -> None:
        # Another loop may have been faster.
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 8)
        self.tell()

    def tell(self) -> None:
        """Wakes whoever waits for an operation that is over, or for notifications."""
        for loop, waiting in self._waiting.copy().items():
            waiters = waiting.waiters.copy()
            over = [future for future, of in waiters if of is None or of._is_over()]
            if over:
                try:
                    loop.call_soon_threadsafe(_wake, over)
                except RuntimeError:
                    # It was closed.
                    self._forget(loop)


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
