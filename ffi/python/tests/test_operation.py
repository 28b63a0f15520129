"""Operations: waited for, awaited, looked at, let go of."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from conftest import Pair

import kvx

Make = Callable[..., kvx.Engine]


def write(pair: Pair) -> kvx.Prepared:
    ours = pair.a.spans(pair.source, [0], [1 << 16])
    return kvx.prepare("WRITE", ours, pair.peer.spans([0], [1 << 16]))


def test_awaited_operations_end(pair: Pair) -> None:
    prepared = write(pair)

    async def main() -> None:
        peer = await pair.a.connect(pair.b.address)
        assert peer.id == pair.b.id
        await peer.ready()
        reports = await asyncio.gather(*(prepared.post() for _ in range(50)))
        assert {report.bytes for report in reports} == {1 << 16}

    asyncio.run(main())


def test_notifications_are_awaited(pair: Pair) -> None:
    async def listen() -> list[bytes]:
        heard = []
        async for told in pair.b.notifications():
            heard.append(told.data)
            if told.data == b"9":
                break
        return heard

    async def main() -> None:
        listener = asyncio.create_task(listen())
        for number in range(10):
            await asyncio.sleep(0.002)
            await pair.peer.notify(str(number).encode())
        assert await listener == [str(number).encode() for number in range(10)]

    asyncio.run(main())


def test_event_loops_of_several_threads_wait_for_one_engine(pair: Pair) -> None:
    prepared = write(pair)
    ended = []

    async def main() -> None:
        for _ in range(30):
            await prepared.post()
        ended.append(True)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ended) == 4


def test_cancelling_a_task_leaves_the_operation(pair: Pair) -> None:
    async def main() -> None:
        operation = pair.a.connect("127.0.0.1:1")

        async def wait() -> None:
            await operation

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not operation.done
        # The loop watches nothing any more, and is to be used again.
        await pair.peer.ready()

    asyncio.run(main())


def test_failures_carry_their_status_and_cause(make_engine: Make) -> None:
    engine = make_engine(deadline=0.2)
    operation = engine.connect("127.0.0.1:1")
    with pytest.raises(kvx.Error, match=r"127\.0\.0\.1:1") as failed:
        operation.wait(20)
    assert failed.value.status == operation.status < 0
    with pytest.raises(type(failed.value)):
        operation.result()


def test_a_wait_has_an_end(make_engine: Make) -> None:
    operation = make_engine(deadline=30).connect("127.0.0.1:1")
    with pytest.raises(kvx.PendingError):
        operation.wait(0.01)
    with pytest.raises(kvx.PendingError):
        operation.result()
    assert (operation.done, operation.status) == (False, kvx.Status.PENDING)
    with pytest.raises(kvx.UnsupportedError):
        operation.cancel()


def test_other_threads_run_while_one_waits(make_engine: Make) -> None:
    operation = make_engine(deadline=30).connect("127.0.0.1:1")
    counted = 0

    def wait() -> None:
        with contextlib.suppress(kvx.PendingError):
            operation.wait(0.5)

    thread = threading.Thread(target=wait)
    thread.start()
    while thread.is_alive():
        counted += 1
    assert counted > 1000


def test_what_was_released_is_an_error(pair: Pair) -> None:
    transfer = write(pair).post()
    transfer.release()
    transfer.release()
    for use in (transfer.wait, transfer.result, lambda: transfer.done, lambda: transfer.status):
        with pytest.raises(kvx.UnknownHandleError):
            use()
    prepared = write(pair)
    prepared.release()
    prepared.release()
    with pytest.raises(kvx.UnknownHandleError):
        prepared.post()
    spans = pair.peer.spans([0], [1])
    with spans:
        pass
    with pytest.raises(kvx.UnknownHandleError):
        kvx.prepare("WRITE", pair.a.spans(pair.source, [0], [1]), spans)
    pair.peer.remove()
    with pytest.raises(kvx.UnknownHandleError):
        pair.peer.notify(b"")


def test_dropped_operations_go_on(pair: Pair) -> None:
    pair.source.buffer[:4] = b"kvx!"
    write(pair).post(b"done")
    gc.collect()
    assert pair.b.wait_notification(10) is not None
    assert bytes(pair.target.buffer[:4]) == b"kvx!"


def test_a_closed_engine_is_an_error(pair: Pair) -> None:
    prepared = write(pair)
    pair.a.close()
    pair.a.close()
    with pytest.raises(kvx.UnknownHandleError):
        pair.a.allocate(1)
    with pytest.raises(kvx.ShutDownError):
        prepared.post().wait(10)
    assert "closed" in repr(pair.a)


LOOKS = """
import ctypes, os, kvx
engine = kvx.Engine(environment=False, log="kvx=error")
region = engine.allocate(4096)
spans = engine.spans(region, [0], [4096])
transfer = kvx.prepare("WRITE", spans, engine.myself().spans([0], [4096])).post()
transfer.wait(10)

def look():
    for _ in range(1000):
        assert transfer.done and transfer.status == kvx.Status.OK
        assert engine.poll_notification() is None

look()
SECCOMP, STRICT = 22, 1
if ctypes.CDLL(None).prctl(SECCOMP, STRICT, 0, 0, 0) != 0:
    os.write(1, b"refused")
else:
    # From here on this thread may read, write, and nothing else of the kernel, or it is killed.
    look()
    os.write(1, b"quiet")
"""


def test_looking_for_news_makes_no_system_call() -> None:
    looks = subprocess.run([sys.executable, "-c", LOOKS], stdout=subprocess.PIPE, timeout=60)
    if looks.stdout == b"refused":
        pytest.skip("the kernel has no strict seccomp mode")
    assert looks.stdout == b"quiet"


SIGNALS = """
import signal, sys, kvx
a, b = (kvx.Engine(environment=False, log="kvx=error") for _ in range(2))
peer = a.add_peer(b.metadata([]))
peer.ready().wait(20)
waits = {
    "notification": a.wait_notification,
    "operation": peer.find_rank(kvx.Rank("nobody"), 600).wait,
}[sys.argv[1]]
ticks = 0

def tick(*_):
    global ticks
    ticks += 1
    if ticks == 3:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
try:
    waits()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("what", ["notification", "operation"])
def test_signal_handlers_run_while_the_main_thread_waits(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS, what], check=True, timeout=30, stdout=subprocess.PIPE
    )
    assert done.stdout == b"interrupted\n"


def test_a_wait_for_notifications_ends_with_the_engine(make_engine: Make) -> None:
    engine = make_engine()
    closes = threading.Timer(0.01, engine.close)
    closes.start()
    for seconds in (None, 600):
        with pytest.raises(kvx.UnknownHandleError):
            engine.wait_notification(seconds)
    closes.join()


def test_times_that_are_none_are_errors(pair: Pair) -> None:
    transfer = pair.peer.find_rank(kvx.Rank("nobody"), 600)
    for seconds in (float("nan"), float("-inf")):
        for wait in (transfer.wait, pair.a.wait_notification):
            with pytest.raises(kvx.InvalidError, match="not a time to wait"):
                wait(seconds)
    with pytest.raises(kvx.PendingError):
        transfer.wait(-1)
    assert pair.a.wait_notification(-1) is None
    pair.a.myself().notify(b"told").wait(float("inf"))
    assert pair.a.wait_notification(1e300) is not None
    for seconds in (float("nan"), 1e300, 0.0, -1.0):
        with pytest.raises(kvx.InvalidError, match="not a time to wait"):
            write(pair).post(deadline=seconds)


FORKS = """
import os, sys
import kvx
engine = kvx.Engine(environment=False, log="kvx=error")
region = engine.allocate(4096)
child = os.fork()
if child == 0:
    for use in (lambda: engine.allocate(1), lambda: kvx.Engine(), region.deregister):
        try:
            use()
        except kvx.ForkedError:
            continue
        os._exit(1)
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert engine.connect(engine.address), "the parent goes on"
region.deregister()
"""


def test_a_forked_child_is_told_so() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=60)


FORKS_MEANWHILE = """
import asyncio, os
import kvx
from kvx import Status

def leave(status):
    assert os.waitstatus_to_exitcode(status) == 0, status

# Who only imported the package may fork, and both may use it.
child = os.fork()
a, b = (kvx.Engine(environment=False, log="kvx=error") for _ in range(2))
peer = a.add_peer(b.metadata([]))
peer.ready().wait(20)
peer.notify(b"told").wait(20)
assert b.waiting_notifications == 1
ended, pending = peer.ready(), peer.find_rank(kvx.Rank("nobody"), 60)
ended.wait(20)
assert (ended.status, pending.status) == (Status.OK, Status.PENDING)
if child == 0:
    os._exit(0)
leave(os.waitpid(child, 0)[1])

child = os.fork()
if child == 0:
    async def awaited(operation):
        await operation

    for operation in (ended, pending):
        assert operation.done and operation.status == Status.FORKED
        uses = (operation.result, operation.wait, lambda: asyncio.run(awaited(operation)))
        for use in (*uses, lambda: b.waiting_notifications):
            try:
                use()
            except kvx.ForkedError:
                continue
            os._exit(1)
    os._exit(0)
leave(os.waitpid(child, 0)[1])
assert (ended.status, pending.status) == (Status.OK, Status.PENDING)
"""


def test_what_was_under_way_is_over_in_a_forked_child() -> None:
    subprocess.run([sys.executable, "-c", FORKS_MEANWHILE], check=True, timeout=60)


EXITS = """
import kvx, numpy as np, sys
a, b = kvx.Engine(environment=False), kvx.Engine(environment=False)
memory = np.zeros(1 << 24, np.uint8)
region = b.register(memory)
peer = a.add_peer(b.metadata([region]))
source = a.allocate(1 << 24)
write = kvx.prepare("WRITE", a.spans(source, [0], [1 << 24]), peer.spans([0], [1 << 24]))
transfers = [write.post() for _ in range(8)]
print("leaving", flush=True)
"""


def test_an_interpreter_exits_in_the_midst_of_transfers() -> None:
    env = dict(os.environ, KVX_LOG="kvx=off")
    done = subprocess.run(
        [sys.executable, "-c", EXITS], check=True, timeout=60, capture_output=True, env=env
    )
    assert done.stdout == b"leaving\n"
    assert b"Traceback" not in done.stderr


STOPS = """
import sys, kvx, numpy as np
engine = kvx.Engine("stopped", environment=False, log="kvx=error")
region = engine.allocate(1 << 16)
sys.stdout.write(engine.metadata([region]).hex() + "\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def test_a_stopped_peer_costs_a_deadline_and_nothing_else(make_engine: Make) -> None:
    engine = make_engine()
    child = subprocess.Popen(
        [sys.executable, "-c", STOPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        peer = engine.add_peer(bytes.fromhex(child.stdout.readline()))
        peer.ready().wait(20)
        source = engine.register(np.zeros(1 << 16, np.uint8))
        ours, theirs = engine.spans(source, [0], [1 << 16]), peer.spans([0], [1 << 16])
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(kvx.DeadlineError, match="stopped"):
            kvx.prepare("READ", ours, theirs).post(deadline=0.5).wait(20)
    finally:
        child.kill()
        child.wait()
