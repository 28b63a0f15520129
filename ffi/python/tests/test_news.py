"""Event loops that wait for an engine's news: several at a time, some that are closed early."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Pair

import kvx

Make = Callable[..., kvx.Engine]


async def ended(operation: kvx.Operation[Any]) -> Any:
    return await operation


async def first(engine: kvx.Engine) -> bytes:
    async for told in engine.notifications():
        return told.data
    raise AssertionError("notifications end")


def eventfds() -> int:
    """How many this process has open."""
    gc.collect()
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        # What lists them is closed by now.
        with contextlib.suppress(FileNotFoundError):
            found += "eventfd" in os.readlink(f"/proc/self/fd/{descriptor}")
    return found


def test_closing_an_engine_ends_the_wait_for_its_notifications(make_engine: Make) -> None:
    async def main() -> None:
        before = eventfds()
        engine = make_engine()
        loop = asyncio.get_running_loop()
        listener = asyncio.create_task(first(engine))
        await asyncio.sleep(0)
        engine.close()
        # One of them gets the number of each descriptor that was closed, and is read as any other.
        pairs = [socket.socketpair() for _ in range(16)]
        try:
            with pytest.raises(kvx.UnknownHandleError):
                await asyncio.wait_for(listener, 20)
            for reader, writer in pairs:
                reader.setblocking(False)
                received = asyncio.create_task(loop.sock_recv(reader, 16))
                await asyncio.sleep(0)
                writer.send(b"somebody else's")
                assert await asyncio.wait_for(received, 20) == b"somebody else's"
        finally:
            for ends in pairs:
                for end in ends:
                    end.close()
        assert eventfds() == before

    asyncio.run(main())


def test_releasing_what_is_awaited_ends_that_wait_alone(pair: Pair) -> None:
    async def main() -> None:
        released = pair.peer.find_rank(kvx.Rank("nobody"), 600)
        other = pair.peer.find_rank(kvx.Rank("late"), 600)
        waits = [asyncio.create_task(ended(operation)) for operation in (released, other)]
        await asyncio.sleep(0)
        released.release()
        pair.b.serve_rank(kvx.Rank("late"))
        found = await asyncio.wait_for(waits[1], 20)
        assert found.engine == pair.b.id
        with pytest.raises(kvx.UnknownHandleError, match="was released"):
            await asyncio.wait_for(waits[0], 20)

    asyncio.run(main())


@pytest.fixture
def other_loop(pair: Pair) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in another thread, which waits for news of `pair.a` all the time."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    waits = asyncio.run_coroutine_threadsafe(
        ended(pair.peer.find_rank(kvx.Rank("nobody"), 600)), loop
    )
    yield loop
    waits.cancel()
    turn(loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Returns when a loop has dealt with all that it could see."""
    for _ in range(3):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(20)


class Slow(asyncio.SelectorEventLoop):
    """What has to happen between a look and the wait that follows happens."""

    meanwhile: Callable[[], None] | None = None

    def create_future(self) -> asyncio.Future[Any]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().create_future()


def test_a_notification_that_another_loop_has_seen_first_is_heard(
    pair: Pair, other_loop: asyncio.AbstractEventLoop
) -> None:
    loop = Slow()

    def meanwhile() -> None:
        pair.a.myself().notify(b"heard").wait(20)
        assert pair.a.waiting_notifications == 1
        turn(other_loop)

    async def main() -> bytes:
        listener = asyncio.create_task(first(pair.a))
        loop.meanwhile = meanwhile
        return await listener

    turn(other_loop)
    try:
        listener = loop.create_task(main())
        loop.call_later(20, listener.cancel)
        assert loop.run_until_complete(listener) == b"heard"
    finally:
        loop.close()


def test_what_a_closed_loop_waited_for_is_let_go(pair: Pair) -> None:
    async def found(rank: kvx.Rank) -> None:
        waits = asyncio.create_task(ended(pair.peer.find_rank(rank, 600)))
        await asyncio.sleep(0)
        pair.b.serve_rank(rank)
        await asyncio.wait_for(waits, 20)

    asyncio.run(found(kvx.Rank("first")))
    before = eventfds()
    operation = pair.peer.find_rank(kvx.Rank("second"), 600)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    left = loop.create_task(ended(operation))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    pair.b.serve_rank(kvx.Rank("second"))
    operation.wait(20)
    kept = [weakref.ref(operation), weakref.ref(loop)]
    del operation, loop, left
    asyncio.run(found(kvx.Rank("third")))
    assert eventfds() == before
    assert [reference() for reference in kept] == [None, None]


class Full(asyncio.SelectorEventLoop):
    """A loop that cannot watch another descriptor, at first."""

    full = True

    def add_reader(self, *arguments: Any) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().add_reader(*arguments)


def test_a_loop_that_could_not_watch_is_tried_again(pair: Pair) -> None:
    loop = Full()

    async def main() -> None:
        operation = pair.peer.find_rank(kvx.Rank("late"), 600)
        open_before = []
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                await operation
            open_before.append(eventfds())
        assert open_before[0] == open_before[1]
        loop.full = False
        waits = asyncio.create_task(ended(operation))
        await asyncio.sleep(0)
        pair.b.serve_rank(kvx.Rank("late"))
        assert await asyncio.wait_for(waits, 20) is not None

    pair.peer.ready().wait(20)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
