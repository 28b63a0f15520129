"""What NIXL over UCX does not bear, a test or more for each: it holds here."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import struct
import subprocess
import sys
import time
import zlib
from typing import Any, Callable

import numpy as np
import pytest
from nixl_agents import (
    PATIENCE_S,
    Agents,
    Memory,
    Pair,
    Worker,
    arrived,
    failure,
    finished,
    moved,
    until,
)

import kvx
from kvx.dropin import FOLDER

Workers = Callable[..., Worker]
Pairs = Callable[..., Pair]


# Forged addresses.


def crc32c(data: bytes) -> int:
    """What the engine's metadata ends with."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF


def forged(metadata: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """Metadata in which the region of address and length `old` claims to be at `new`."""
    # The engine's metadata is the last block before the checksum (kvx.dropin.nixl.envelope).
    start = metadata.index(b"KVXM")
    engine, head = metadata[start:-4], metadata[:start]
    place = struct.pack("<QQ", *old)
    assert engine.count(place) == 1
    engine = engine[:-4].replace(place, struct.pack("<QQ", *new))
    body = head + engine + struct.pack("<I", crc32c(engine))
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("op", ["READ", "WRITE"])
@pytest.mark.parametrize("forgery", ["longer", "elsewhere"])
def test_memory_that_was_never_registered_is_out_of_reach(
    agents: Agents, op: str, forgery: str
) -> None:
    one, two = agents("one"), agents("two")
    mine = agents.memory(one, 4096, fill=1)
    # Registered is only the first page.
    theirs = Memory(3 * 4096, fill=2)
    two.register_memory([(theirs.address, 4096, 0, "")], "DRAM")
    start = theirs.address if forgery == "longer" else theirs.address + 4096
    claim = (start, 3 * 4096 if forgery == "longer" else 4096)
    metadata = forged(two.get_agent_metadata(), (theirs.address, 4096), claim)
    assert one.add_remote_agent(metadata) == b"two"
    local = one.prep_xfer_dlist("", mine.table((0, 4096)), "DRAM")
    remote = one.prep_xfer_dlist("two", theirs.table((4096, 4096)), "DRAM")
    handle = one.make_prepped_xfer(op, local, [0], remote, [0])
    with contextlib.suppress(agents.nixl._bindings.nixlNotAllowedError):
        moved(one, handle)
        # The place that it claims to be is not looked at: what moved is the region itself.
        assert forgery == "elsewhere"
    assert (theirs.array[4096:] == 2).all()
    assert (mine.array == 1).all() or forgery == "elsewhere"


def test_what_forged_metadata_asks_for_is_refused(agents: Agents) -> None:
    one, two = agents("one"), agents("two")
    mine = agents.memory(one, 4096)
    theirs = agents.memory(two, 4096, fill=2)
    one.add_remote_agent(
        forged(two.get_agent_metadata(), (theirs.address, 4096), (theirs.address, 1 << 20))
    )
    local = one.prep_xfer_dlist("", mine.table((0, 4096)), "DRAM")
    remote = one.prep_xfer_dlist("two", theirs.table((4000, 4096)), "DRAM")
    for op in ("READ", "WRITE"):
        handle = one.make_prepped_xfer(op, local, [0], remote, [0])
        error = failure(one, handle)
        assert isinstance(error, agents.nixl._bindings.nixlNotAllowedError)
        assert str(error).startswith("NIXL_ERR_NOT_ALLOWED")
        with pytest.raises(agents.nixl._bindings.nixlNotAllowedError):
            one.check_xfer_state(handle)
    assert not mine.array.any()
    # The agent is well: what is allowed still works.
    good = one.prep_xfer_dlist("two", theirs.table((0, 4096)), "DRAM")
    moved(one, one.make_prepped_xfer("READ", local, [0], good, [0]))
    assert (mine.array == 2).all()


def transfer(agent: Any, op: str, here: tuple[int, int], there: tuple[int, int]) -> Any:
    """A transfer of one place to or from one of agent `two`."""
    local = agent.get_xfer_descs([(*here, 0)], "DRAM")
    return agent.initialize_xfer(op, local, agent.get_xfer_descs([(*there, 0)], "DRAM"), "two")


# Memory that its owner took back.


def test_a_write_to_memory_that_was_freed_is_an_error_and_its_owner_lives(
    agents: Agents, worker: Workers
) -> None:
    two = worker()
    two.agent("two")
    memory, address = two("memory", size=1 << 20, fill=2)
    other, other_address = two("memory", size=4096, fill=3)
    one = agents("one")
    mine = agents.memory(one, 1 << 20, fill=1)
    one.add_remote_agent(two.metadata())
    local = one.prep_xfer_dlist("", mine.table((0, 1 << 20), (0, 4096)), "DRAM")
    places = np.array([(address, 1 << 20, 0), (other_address, 4096, 0)], dtype=np.uint64)
    remote = one.prep_xfer_dlist("two", places, "DRAM")
    handle = one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    moved(one, handle)
    two("free", memory=memory)
    assert isinstance(failure(one, handle), agents.nixl._bindings.nixlNotAllowedError)
    fresh = one.make_prepped_xfer("READ", local, [0], remote, [0])
    assert isinstance(failure(one, fresh), agents.nixl._bindings.nixlNotAllowedError)
    moved(one, one.make_prepped_xfer("WRITE", local, [1], remote, [1]))
    assert two("count", memory=other, byte=1) == 4096


def test_nothing_lands_after_deregistration_returns(make_pair: Pairs) -> None:
    pair = make_pair(256 << 20)
    moved(pair.one, pair.one.make_prepped_xfer("WRITE", *spread(pair.sides())))
    pair.theirs.array[:64] = 2
    handle = pair.whole()
    assert pair.one.transfer(handle) == "PROC"
    until(lambda: pair.theirs.array[:: 1 << 20].tobytes().count(1) > 0, "the first byte")
    descs = pair.two.get_reg_descs(pair.theirs.row(), "DRAM")
    pair.two.deregister_memory(descs)
    landed = pair.theirs.array.copy()
    assert (landed == 2).any(), "all had landed before"
    error = None
    try:
        finished(pair.one, handle)
    except Exception as caught:
        error = caught
    assert isinstance(error, pair.agents.nixl._bindings.nixlNotAllowedError)
    assert (pair.theirs.array == landed).all()


def spread(sides: tuple[Any, Any]) -> tuple[Any, list[int], Any, list[int]]:
    return sides[0], [0], sides[1], [0]


# Release.


@pytest.mark.parametrize("op", ["READ", "WRITE"])
def test_nothing_lands_after_the_release_of_an_active_transfer(make_pair: Pairs, op: str) -> None:
    pair = make_pair(256 << 20)
    moved(pair.one, pair.one.make_prepped_xfer("WRITE", *spread(pair.sides())))
    (pair.theirs if op == "WRITE" else pair.mine).array[:64] = 5
    handle = pair.whole(op)
    target = pair.theirs if op == "WRITE" else pair.mine
    new = 1 if op == "WRITE" else 2
    assert pair.one.transfer(handle) == "PROC"
    until(lambda: target.array[:: 1 << 20].tobytes().count(new) > 0, "the first byte")
    pair.one.release_xfer_handle(handle)
    landed = target.array.copy()
    assert (landed != new).any(), "all had landed before"
    # What an engine without a fence would do now is to go on: give it the time.
    moved(pair.one, pair.one.make_prepped_xfer("WRITE", *spread(pair.sides((1024, 64)))))
    time.sleep(0.5)
    target.array[1024:1088] = landed[1024:1088]
    assert (target.array == landed).all()


def test_a_release_that_is_not_confirmed_raises_and_may_be_repeated(
    agents: Agents, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVX_DEADLINE", "3")
    two, one = worker(), agents("one")
    two.agent("two")
    _, address = two("memory", size=64 << 20)
    mine = agents.memory(one, 64 << 20, fill=1)
    one.add_remote_agent(two.metadata())
    # What was never there can be taken back without asking.
    moved(one, transfer(one, "WRITE", (mine.address, 64), (address, 64)))
    handle = transfer(one, "WRITE", (mine.address, mine.size), (address, mine.size))
    two.stop()
    assert one.transfer(handle) == "PROC"
    with pytest.raises(agents.nixl._bindings.nixlRepostActiveError):
        one.release_xfer_handle(handle)
    assert "released=False" in repr(handle)

    def released() -> bool:
        try:
            one.release_xfer_handle(handle)
        except agents.nixl._bindings.nixlRepostActiveError:
            return False
        return True

    # By the deadline it has ended, confirmed or not.
    until(released, "the release")
    two.go_on()


def test_a_handle_that_nobody_holds_gives_its_transfer_up(make_pair: Pairs) -> None:
    pair = make_pair(256 << 20)
    handle = pair.whole()
    pair.one.transfer(handle)
    request = next(iter(pair.one.agent._requests.values()))
    del handle
    gc.collect()
    assert not pair.one.agent._requests
    until(lambda: request.last.transfer.done, "the end of the transfer")
    with pytest.raises(kvx.CancelledError):
        request.last.transfer.result()


# Deadlines.


def test_a_transfer_with_a_stopped_peer_ends(
    agents: Agents, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVX_DEADLINE", "1")
    two, one = worker(), agents("one")
    two.agent("two")
    _, address = two("memory", size=64 << 20)
    mine = agents.memory(one, 64 << 20, fill=1)
    one.add_remote_agent(two.metadata())
    # What was never there can be taken back without asking.
    moved(one, transfer(one, "WRITE", (mine.address, 64), (address, 64)))
    handle = transfer(one, "WRITE", (mine.address, mine.size), (address, mine.size))
    two.stop()
    assert one.transfer(handle) == "PROC"
    bindings = agents.nixl._bindings
    ended = (bindings.nixlCancelledError, bindings.nixlRemoteDisconnectError)
    try:
        finished(one, handle)
    except ended as error:
        first = type(error)
    with pytest.raises(first):
        one.check_xfer_state(handle)
    one.release_xfer_handle(handle)
    two.go_on()


def test_an_agent_that_is_not_there_ends_a_transfer(
    agents: Agents, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVX_DEADLINE", "1")
    two, one = worker(), agents("one")
    two.agent("two")
    _, address = two("memory", size=4096)
    metadata = two.metadata()
    two.kill()
    mine = agents.memory(one)
    one.add_remote_agent(metadata)
    local = one.get_xfer_descs([(mine.address, 64, 0)], "DRAM")
    remote = one.get_xfer_descs([(address, 64, 0)], "DRAM")
    handle = one.initialize_xfer("WRITE", local, remote, "two")
    gone = agents.nixl._bindings.nixlRemoteDisconnectError
    assert isinstance(failure(one, handle), gone)
    assert not one.check_remote_metadata("two")
    with pytest.raises(gone):
        one.check_xfer_state(handle)


# Notifications.


@pytest.mark.parametrize("op", ["WRITE", "READ"])
def test_the_notification_of_a_transfer_leaves_without_polling(
    agents: Agents, worker: Workers, op: str
) -> None:
    """The initiator posts, and then does nothing at all."""
    one, two = worker(), agents("two")
    theirs = agents.memory(two, 16 << 20, fill=2)
    one.agent("one")
    memory, _ = one("memory", size=16 << 20, fill=1)
    one("add", metadata=two.get_agent_metadata().hex())
    handle = one(
        "prepare",
        op=op,
        memory=memory,
        agent="two",
        address=theirs.address,
        size=16 << 20,
        notif="all there",
    )
    one("post", handle=handle)
    one.tell("sleep", seconds=3600)
    assert arrived(two) == {"one": [b"all there"]}
    if op == "WRITE":
        assert (theirs.array == 1).all()


# Lives.


def test_a_peer_that_is_gone_is_told_again_and_again(agents: Agents, worker: Workers) -> None:
    two, one = worker(), agents("one")
    two.agent("two")
    _, address = two("memory", size=4096)
    mine = agents.memory(one)
    one.add_remote_agent(two.metadata())
    local = one.get_xfer_descs([(mine.address, 64, 0)], "DRAM")
    remote = one.get_xfer_descs([(address, 64, 0)], "DRAM")
    handle = one.initialize_xfer("WRITE", local, remote, "two")
    moved(one, handle)
    assert one.check_remote_metadata("two")
    two.kill()
    gone = agents.nixl._bindings.nixlRemoteDisconnectError

    def failed() -> bool:
        try:
            moved(one, handle)
        except gone:
            return True
        return False

    until(failed, "the news of the peer's death")
    with pytest.raises(gone, match=r"^NIXL_ERR_REMOTE_DISCONNECT"):
        one.check_xfer_state(handle)
    # Callers find out by this that they have to add it again.
    assert not one.check_remote_metadata("two")
    one.release_xfer_handle(handle)


def test_a_restarted_peer_is_added_again_under_its_name(agents: Agents, worker: Workers) -> None:
    one = agents("one")
    mine = agents.memory(one)
    handles = []
    for life in range(3):
        two = worker()
        two.agent("two")
        memory, address = two("memory", size=4096, fill=10 + life)
        assert one.add_remote_agent(two.metadata()) == b"two"
        local = one.prep_xfer_dlist("", mine.table((0, 4096)), "DRAM")
        place = np.array([(address, 4096, 0)], dtype=np.uint64)
        remote = one.prep_xfer_dlist("two", place, "DRAM")
        handle = one.make_prepped_xfer("READ", local, [0], remote, [0])
        moved(one, handle)
        assert mine.array[0] == 10 + life
        one.send_notif("two", f"life {life}")
        assert two("notifs", count=1) == {"one": [f"life {life}"]}
        handles.append(handle)
        two.kill()
        del memory
    for handle in handles[:-1]:
        with pytest.raises(
            (
                agents.nixl._bindings.nixlNotFoundError,
                agents.nixl._bindings.nixlRemoteDisconnectError,
            )
        ):
            moved(one, handle)


def test_what_one_life_tells_is_not_taken_for_another(agents: Agents) -> None:
    one, two = agents("one"), agents("two")
    one.add_remote_agent(two.get_agent_metadata())
    agents.forget(two)
    del two
    gc.collect()
    two = agents("two")
    agents.memory(two)
    nothing = agents.nixl._bindings.nixlRegDList(agents.nixl._bindings.DRAM_SEG)
    with pytest.raises(agents.nixl._bindings.nixlNotFoundError):
        one.add_remote_agent(two.get_partial_agent_metadata(nothing))
    assert one.add_remote_agent(two.get_partial_agent_metadata(nothing, True)) == b"two"
    assert one.add_remote_agent(two.get_partial_agent_metadata(nothing)) == b"two"


# Handles.


def test_a_released_handle_is_an_error(make_pair: Pairs) -> None:
    pair = make_pair()
    handle = pair.whole()
    moved(pair.one, handle)
    handle.release()
    wrong = pair.agents.nixl._bindings.nixlInvalidParamError
    agent = pair.one
    for use in (
        agent.check_xfer_state,
        agent.transfer,
        agent.get_xfer_telemetry,
        agent.query_xfer_backend,
        agent.estimate_xfer_cost,
    ):
        with pytest.raises(wrong):
            use(handle)
    # To release it again is no error, as with NIXL.
    handle.release()


def test_made_up_numbers_are_errors(make_pair: Pairs) -> None:
    pair = make_pair()
    local, _ = pair.sides()
    wrong = pair.agents.nixl._bindings.nixlInvalidParamError
    lower = pair.one.agent
    for number in (0, 1, -1, 2**64, local._handle):
        for use in (lower.getXferStatus, lower.postXferReq, lower.releaseXferReq):
            with pytest.raises(wrong):
                use(number)
    with pytest.raises(wrong):
        lower.releasedDlistH(12345)
    with pytest.raises(wrong):
        lower.makeXferReq(pair.agents.nixl._bindings.NIXL_READ, local._handle, [0], 12345, [0])


# Processes.


def test_an_interpreter_ends_well_with_agents_and_transfers(nixl: Any) -> None:
    program = """
import numpy as np
from nixl._api import nixl_agent, nixl_agent_config
a = nixl_agent("a", nixl_agent_config(enable_listen_thread=True, listen_port=0))
b = nixl_agent("b")
x, y = np.zeros(64 << 20, np.uint8), np.zeros(64 << 20, np.uint8)
for agent, memory in ((a, x), (b, y)):
    agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
a.add_remote_agent(b.get_agent_metadata())
h = a.initialize_xfer("WRITE", a.get_xfer_descs([(x.ctypes.data, x.nbytes, 0)], "DRAM"),
                      a.get_xfer_descs([(y.ctypes.data, y.nbytes, 0)], "DRAM"), "b", b"n")
print(a.transfer(h))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": FOLDER},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip() in ("PROC", "DONE")


def test_looking_ends_in_a_forked_child(nixl: Any) -> None:
    program = """
import os, signal
import numpy as np
from nixl._api import nixl_agent
from nixl._bindings import nixlNotAllowedError
a, b = nixl_agent("a"), nixl_agent("b")
x, y = np.ones(64 << 20, np.uint8), np.zeros(64 << 20, np.uint8)
for agent, memory in ((a, x), (b, y)):
    agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
a.add_remote_agent(b.get_agent_metadata())
h = a.initialize_xfer("WRITE", a.get_xfer_descs([(x.ctypes.data, x.nbytes, 0)], "DRAM"),
                      a.get_xfer_descs([(y.ctypes.data, y.nbytes, 0)], "DRAM"), "b")
a.transfer(h)
child = os.fork()
# A look that never ends is to end with the test.
signal.alarm(50)
for look in (lambda: a.check_xfer_state(h) == "DONE", lambda: a.get_new_notifs() or child):
    try:
        while not look():
            pass
        assert child, "an end"
    except nixlNotAllowedError:
        assert not child
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": FOLDER},
        timeout=60,
        check=True,
    )


def test_looking_makes_no_system_call(nixl: Any) -> None:
    """Under seccomp's strict mode any call but read and write ends the thread."""
    program = """
import ctypes, gc, os
import numpy as np
from nixl._api import nixl_agent
a, b = nixl_agent("a"), nixl_agent("b")
x = np.zeros(1 << 20, np.uint8)
for agent in (a, b):
    agent.register_memory([(x.ctypes.data, x.nbytes, 0, "")], "DRAM")
a.add_remote_agent(b.get_agent_metadata())
descs = a.get_xfer_descs([(x.ctypes.data, 64, 0)], "DRAM")
there = a.get_xfer_descs([(x.ctypes.data + 4096, 64, 0)], "DRAM")
h = a.initialize_xfer("WRITE", descs, there, "b")
a.transfer(h)
while a.check_xfer_state(h) != "DONE":
    pass
def look():
    for _ in range(10000):
        assert a.check_xfer_state(h) == "DONE" and a.get_new_notifs() == {}
look()
gc.disable()
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(22, 1, 0, 0, 0) == 0, ctypes.get_errno()
look()
os.write(1, b"looked")
os.getpid()
os.write(1, b" and called")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": FOLDER},
        stdout=subprocess.PIPE,
    ) as looks:
        assert looks.stdout is not None
        # The engines' threads live on when the looking one is ended, and the pipe with them.
        said = b""
        while said != b"looked" and select.select([looks.stdout], [], [], PATIENCE_S)[0]:
            more = os.read(looks.stdout.fileno(), 64)
            if not more:
                break
            said += more
        looks.kill()
        said += looks.stdout.read()
    assert said == b"looked"
