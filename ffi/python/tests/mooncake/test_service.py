"""What callers do with the drop-in all day: many threads, notifications, memory that comes and
goes."""

from __future__ import annotations

import os
import random
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cases import WRITE
from world import World

import kvx
from kvx.dropin import FOLDER
from kvx.dropin.mooncake import settings
from kvx.dropin.mooncake.engine import TransferEngine
from kvx.dropin.mooncake.peers import _Road
from kvx.dropin.mooncake.values import TransferNotify, TransferOpcode, decode, encode

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MC_TRANSFER_TIMEOUT", "MC_TCP_BIND_ADDRESS", "MC_MIN_RPC_PORT", "KVX_DEADLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def engine() -> TransferEngine:
    return started()


def started() -> TransferEngine:
    made = TransferEngine()
    assert made.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    return made


def name_of(engine: TransferEngine) -> str:
    return f"127.0.0.1:{engine.get_rpc_port()}"


def address_of(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    return int(array.ctypes.data)


def test_ten_threads_write_to_many_peers_at_once(engine: TransferEngine) -> None:
    peers = [started() for _ in range(3)]
    source = np.frombuffer(random.Random(1).randbytes(4 * MIB), np.uint8).copy()
    targets = [np.zeros(4 * MIB, np.uint8) for _ in peers]
    assert engine.register_memory(address_of(source), source.size) == 0
    for peer, target in zip(peers, targets):
        assert peer.register_memory(address_of(target), target.size) == 0
    codes: list[int] = []

    def write(thread: int) -> None:
        # Every tenth block, of every peer in turn.
        for at in range(thread, 512, 10):
            which = at % len(peers)
            places = [offset + at * 8192 for offset in (0, 4096)]
            codes.append(
                engine.batch_transfer_sync_write(
                    name_of(peers[which]),
                    [address_of(source) + place for place in places],
                    [address_of(targets[which]) + place for place in places],
                    [4096, 4096],
                )
            )

    in_threads(10, write)
    assert codes == [0] * 512
    for at in range(512):
        block = slice(at * 8192, (at + 1) * 8192)
        for which, target in enumerate(targets):
            expected = source[block] if at % len(peers) == which else 0
            assert np.array_equal(target[block], np.broadcast_to(expected, 8192))


def test_threads_that_name_an_unknown_peer_at_once_connect_once(engine: TransferEngine) -> None:
    peer = started()
    target = np.zeros(64, np.uint8)
    assert peer.register_memory(address_of(target), target.size) == 0
    source = np.arange(64, dtype=np.uint8)
    codes: list[int] = []
    gate = threading.Barrier(16)

    def write(thread: int) -> None:
        gate.wait()
        place = thread * 4
        codes.append(
            engine.transfer_sync_write(
                name_of(peer), address_of(source) + place, address_of(target) + place, 4
            )
        )

    in_threads(16, write)
    assert codes == [0] * 16
    assert np.array_equal(source, target)


def test_who_gives_up_connecting_gives_up_for_itself_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MC_HANDSHAKE_CONNECT_TIMEOUT", "1")
    engine, peer = started(), world.worker()
    name, source = peer.start(), np.ones(64, np.uint8)
    far = peer.buffer("b", 64)
    assert peer.call("register_memory", far, 64) == 0
    peer.stop()
    probing, writing = threading.Event(), threading.Event()
    connect, wait = kvx.Engine.connect, _Road.wait

    def connects(*args: Any) -> Any:
        probing.set()
        assert writing.wait(60)
        return connect(*args)

    def waits(*args: Any) -> Any:
        writing.set()
        return wait(*args)

    monkeypatch.setattr(kvx.Engine, "connect", connects)
    monkeypatch.setattr(_Road, "wait", waits)
    with ThreadPoolExecutor() as threads:
        probe = threads.submit(engine.send_probe, name)
        assert probing.wait(60)
        # It has 30 s, and waits for the connection of the probe, which has one.
        write = threads.submit(engine.transfer_sync_write, name, address_of(source), far, 64)
        assert probe.result() == -102
        peer.go_on()
        assert write.result() == 0


def test_memory_comes_and_goes_while_others_transfer(engine: TransferEngine) -> None:
    peer = started()
    target, source = np.zeros(4096, np.uint8), np.ones(4096, np.uint8)
    assert peer.register_memory(address_of(target), target.size) == 0
    assert engine.register_memory(address_of(source), source.size) == 0
    done = threading.Event()
    codes: list[int] = []

    def register(thread: int) -> None:
        mine = np.zeros(4096, np.uint8)
        side = (engine, peer)[thread % 2]
        while not done.is_set():
            assert side.register_memory(address_of(mine), mine.size) == 0
            assert side.unregister_memory(address_of(mine)) == 0

    def write(_: int) -> None:
        try:
            for _ in range(200):
                codes.append(
                    engine.transfer_sync_write(
                        name_of(peer), address_of(source), address_of(target), 4096
                    )
                )
        finally:
            done.set()

    in_threads(5, lambda thread: write(thread) if thread == 4 else register(thread))
    assert codes == [0] * 200


def test_memory_that_is_registered_anew_while_a_transfer_begins_is_reached(
    engine: TransferEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = started()
    target, source = np.zeros(4096, np.uint8), np.ones(4096, np.uint8)
    assert peer.register_memory(address_of(target), target.size) == 0
    write = (name_of(peer), address_of(source), address_of(target), 4096)
    assert engine.transfer_sync_write(*write) == 0
    post, posts = kvx.Prepared.post, []

    def meanwhile(prepared: kvx.Prepared, *args: Any, **options: Any) -> kvx.Transfer:
        posts.append(prepared)
        if len(posts) == 1:
            # Before the initiator can have heard of it.
            assert peer.unregister_memory(address_of(target)) == 0
            assert peer.register_memory(address_of(target), target.size) == 0
        return post(prepared, *args, **options)

    monkeypatch.setattr(kvx.Prepared, "post", meanwhile)
    for turn in range(20):
        source[:] = turn
        posts.clear()
        assert engine.transfer_sync_write(*write) == 0
        assert np.array_equal(target, source)


def test_each_notification_is_heard_once_after_its_data_and_in_order(world: World) -> None:
    target = world.worker()
    name = target.start()
    far = target.buffer("b", 8 * 4096)
    assert target.call("register_memory", far, 8 * 4096) == 0
    senders = [world.worker() for _ in range(2)]
    for sender in senders:
        sender.start()
    heard: list[tuple[str, str]] = []
    for turn in range(40):
        for which, sender in enumerate(senders):
            near = sender.buffer("a", 4096, fill=1 + turn)
            told = {"$notify": [f"{which}", f"{turn}"]}
            place = far + which * 4096
            code = sender.call("transfer_sync", name, near, place, 4096, WRITE, told)
            assert code == 0
        came = target.call("get_notifies")
        heard += [(notify["name"], notify["msg"]) for notify in came]
        assert target.read("b", 0, 8192) == bytes([1 + turn]) * 8192
    for one in ("0", "1"):
        assert [msg for name, msg in heard if name == one] == [f"{turn}" for turn in range(40)]


def test_a_notification_of_a_read_is_told_when_the_data_is_here(world: World) -> None:
    pair = world.pair(length=8 * MIB)
    pair.target.do("pattern", name="b", seed=8)
    told = {"$notify": ["read", ""]}
    pair.initiator.send(
        "call",
        method="transfer_sync",
        args=[pair.name, pair.near, pair.far, 8 * MIB, {"$op": "Read"}, told],
        kwargs={},
    )
    while not pair.target.call("get_notifies"):
        pass
    # The target may use its memory anew.
    pair.target.do("pattern", name="b", seed=9)
    assert pair.initiator.answer() == 0
    assert pair.initiator.do("check", name="a", seed=8)


def test_notifications_that_nobody_takes_are_bounded(world: World) -> None:
    pair = world.pair()
    told = {"$notify": [{"$text": ["x", MIB]}, ""]}
    one = (pair.name, pair.near, pair.far, 10, WRITE, told)
    codes = [pair.initiator.call("transfer_sync", *one) for _ in range(40)]
    assert codes[:20] == [0] * 20
    assert codes[-1] == -1
    assert len(pair.target.call("get_notifies")) == codes.count(0)
    assert pair.initiator.call("transfer_sync", *one) == 0


def test_a_peers_memory_is_written_through_any_of_its_names(world: World) -> None:
    target = world.worker()
    name = target.start("[::1]" if has_ipv6() else "127.0.0.1")
    far = target.buffer("b", 4096)
    assert target.call("register_memory", far, 4096) == 0
    initiator = world.worker()
    initiator.start()
    near = initiator.buffer("a", 4096, fill=3)
    assert initiator.call("transfer_sync_write", name, near, far, 4096) == 0
    assert target.read("b", 4095, 1) == b"\3"


def test_what_nobody_asks_for_keeps_no_memory_registered(engine: TransferEngine) -> None:
    peer = started()
    target = np.zeros(64, np.uint8)
    assert peer.register_memory(address_of(target), target.size) == 0
    for number in range(200):
        source = np.full(64, number, np.uint8)
        assert engine.batch_transfer_async_write(
            name_of(peer), [address_of(source)], [address_of(target)], [64]
        )
    service = engine._service
    assert service is not None
    assert len(service.engine.myself().regions) < 100


def test_buffers_that_are_not_registered_lie_anywhere(engine: TransferEngine) -> None:
    peer = started()
    target = np.zeros(64 * 100, np.uint8)
    assert peer.register_memory(address_of(target), target.size) == 0
    sources = [np.full(64, number, np.uint8) for number in range(100)]
    # One of them is registered, and spans the end of it.
    assert engine.register_memory(address_of(sources[3]), 32) == 0
    code = engine.batch_transfer_sync_write(
        name_of(peer),
        [address_of(source) for source in sources],
        [address_of(target) + 64 * number for number in range(100)],
        [64] * 100,
    )
    assert code == 0
    assert np.array_equal(target, np.repeat(np.arange(100, dtype=np.uint8), 64))
    service = engine._service
    assert service is not None
    assert len(service.engine.myself().regions) == 1


def test_names_that_are_no_peer_are_not_kept(engine: TransferEngine) -> None:
    source = np.zeros(16, np.uint8)
    for port in range(1, 20):
        assert engine.transfer_sync_write(f"127.0.0.1:{port}", address_of(source), 1, 16) == -1
    service = engine._service
    assert service is not None
    assert not service.peers._roads


def test_peers_that_went_away_are_not_kept(engine: TransferEngine) -> None:
    for _ in range(3):
        peer = started()
        target = np.zeros(16, np.uint8)
        assert peer.register_memory(address_of(target), target.size) == 0
        source = np.zeros(16, np.uint8)
        name = name_of(peer)
        assert engine.transfer_sync_write(name, address_of(source), address_of(target), 16) == 0
        service = peer._service
        assert service is not None
        service.close()
        # Until the initiator has heard of it.
        while engine.send_probe(name) == 0:
            pass
    last = started()
    assert engine.send_probe(name_of(last)) == 0
    service = engine._service
    assert service is not None
    assert list(service.peers._roads) == [name_of(last)]


def test_an_engine_that_nobody_holds_any_more_is_gone() -> None:
    engine = started()
    port = engine.get_rpc_port()
    del engine
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)


def test_two_engines_may_be_initialized_for_ports_that_are_scarce(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("MC_MIN_RPC_PORT", str(port))
        monkeypatch.setenv("MC_MAX_RPC_PORT", str(port))
        assert TransferEngine().initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == -1
    engine = started()
    assert engine.get_rpc_port() == port


def test_deadlines_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.read().transfer_timeout == 30
    assert settings.read().progress_timeout is None
    for value, seconds in {"60": 60, "1": 5, "nonsense": 30, "": 30}.items():
        monkeypatch.setenv("MC_TRANSFER_TIMEOUT", value)
        assert settings.read().transfer_timeout == seconds
    monkeypatch.setenv("KVX_DEADLINE", "2.5")
    assert settings.read().progress_timeout == 2.5


def test_deadlines_of_any_length_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MC_TRANSFER_TIMEOUT", "9" * 400)
    monkeypatch.setenv("MC_HANDSHAKE_CONNECT_TIMEOUT", "9" * 400)
    engine, peer = started(), started()
    memory = np.zeros(64, np.uint8)
    assert peer.register_memory(address_of(memory), 64) == 0
    assert engine.send_probe(name_of(peer)) == 0
    assert engine.get_first_buffer_address(name_of(peer)) == address_of(memory)
    source = np.ones(64, np.uint8)
    write = (name_of(peer), address_of(source), address_of(memory), 64)
    assert engine.transfer_sync_write(*write) == 0


def test_without_a_descriptor_left_calls_are_codes(engine: TransferEngine) -> None:
    peer = started()
    memory = np.zeros(64, np.uint8)
    base = address_of(memory)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        said = {
            "read": engine.read_bytes_from_buffer(base, 64),
            "written": engine.write_bytes_to_buffer(base, b"abc", 3),
            "write": engine.transfer_sync_write(name_of(peer), base, base, 64),
            "to itself": engine.transfer_sync_write(name_of(engine), base, base, 64),
            "first": engine.get_first_buffer_address(name_of(peer)),
            "probe": engine.send_probe(name_of(peer)),
            "initialize": TransferEngine().initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""),
        }
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert said == {
        "read": b"",
        "written": -1,
        "write": -1,
        "to itself": -1,
        "first": 0,
        "probe": -102,
        "initialize": -1,
    }


def test_the_level_of_the_log_is_that_of_the_environment(world: World) -> None:
    def log(environment: dict[str, str]) -> str:
        worker = world.worker(environment)
        worker.start()
        assert worker.call("send_probe", "127.0.0.1:1") == -102
        assert worker.call("unregister_memory", 1) == -3
        assert worker.call("transfer_sync_write", "127.0.0.1:1", 1, 1, 1) == -1
        return worker.log()

    assert "send_probe 127.0.0.1:1" in log({})
    quiet = log({"MC_LOG_LEVEL": "ERROR"})
    assert "send_probe" not in quiet
    assert "WRITE of 1 buffers to 127.0.0.1:1 failed" in quiet
    assert "engine is up" in log({}), "what the engine itself logs"
    assert "engine is up" not in log({"MC_LOG_LEVEL": "WARNING"})
    assert "engine is up" in log({"MC_LOG_LEVEL": "WARNING", "KVX_LOG": "kvx=info"})


def test_servers_of_metadata_are_refused_with_a_word_on_what_is_supported(world: World) -> None:
    worker = world.worker()
    worker.do("new")
    for server in ("etcd://127.0.0.1:1", "redis://127.0.0.1:1", "http://127.0.0.1:1/m", ""):
        assert worker.call("initialize", "127.0.0.1", server, "tcp", "") == -1
    assert worker.log().count("supported is P2PHANDSHAKE") == 4


@pytest.mark.parametrize(
    ("host", "variable", "bound"),
    [
        ("127.0.0.2", None, "127.0.0.2"),
        ("127.0.0.2", "127.0.0.3", "127.0.0.3"),
        ("nosuch.invalid", "127.0.0.3", "127.0.0.3"),
    ],
)
def test_the_host_is_what_is_bound_unless_a_variable_says_otherwise(
    world: World, host: str, variable: str | None, bound: str
) -> None:
    worker = world.worker({"MC_TCP_BIND_ADDRESS": variable} if variable else {})
    port = int(worker.start(host).rpartition(":")[2])
    socket.create_connection((bound, port), timeout=60).close()
    for other in {"127.0.0.1", "127.0.0.2", "127.0.0.3"} - {bound}:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, port), timeout=60)


def test_notifications_say_what_was_put_into_them() -> None:
    for name, msg in (("", ""), ("n", "m"), ("ü€", "\0"), ("x" * 70_000, "y" * 9)):
        told = decode(encode(TransferNotify(name, msg)))
        assert told is not None
        assert (told.name, told.msg) == (name, msg)
    for other in (b"", b"kvxm\x02" + bytes(8), encode(TransferNotify("abc", ""))[:-1], bytes(64)):
        assert decode(other) is None


def test_notifications_of_another_kind_are_passed_over(engine: TransferEngine) -> None:
    with kvx.Engine() as stranger:
        peer = stranger.connect(name_of(engine)).wait()
        peer.notify(b"hello").wait()
        peer.notify(encode(TransferNotify("n", "m"))).wait()
        assert [told.name for told in engine.get_notifies()] == ["n"]


def test_calls_in_a_forked_child_are_codes() -> None:
    engine = started()
    name = name_of(engine)
    memory = np.zeros(64, np.uint8)
    assert engine.register_memory(address_of(memory), 64) == 0
    batch = engine.batch_transfer_async_write(name, [], [], [])

    def calls() -> list[int]:
        return [
            engine.get_rpc_port(),
            engine.transfer_sync_write(name, address_of(memory), address_of(memory), 4),
            engine.get_batch_transfer_status([batch]),
            engine.unregister_memory(address_of(memory)),
            engine.send_probe(name),
            engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""),
        ]

    assert in_child(lambda: calls() == [-1] * 6)
    assert engine.send_probe(name) == 0


def test_calls_while_another_thread_replaces_the_engine_are_codes(
    world: World, engine: TransferEngine
) -> None:
    pair = world.pair()
    source, own = np.zeros(MIB, np.uint8), np.zeros(64, np.uint8)
    one = (pair.name, address_of(source), pair.far, MIB)
    assert engine.transfer_sync_write(*one) == 0
    assert engine.register_memory(address_of(own), 64) == 0
    managed = engine.allocate_managed_buffer(64)
    pair.target.stop()
    lists = (pair.name, [address_of(source)], [pair.far], [MIB])
    batches = [engine.batch_transfer_async_read(*lists) for _ in range(2)]
    submitted = engine.transfer_submit_write(*one)
    assert 0 not in (managed, submitted, *batches)
    # As far as `initialize` has come when the calls find it.
    service = engine._service
    assert service is not None
    service.close()
    codes = {
        "status": engine.get_batch_transfer_status(batches[:1]),
        "looked at": engine.transfer_check_status(batches[1]),
        "write": engine.transfer_sync_write(*one),
        "read": engine.batch_transfer_sync_read(*lists),
        "begun": engine.batch_transfer_async_write(*lists) - 1,
        "register": engine.register_memory(address_of(source), MIB),
        "allocate": engine.allocate_managed_buffer(64) - 1,
        "first": engine.get_first_buffer_address(pair.name) - 1,
    }
    assert codes == dict.fromkeys(codes, -1)
    # Whether it has landed only its deadline tells.
    assert engine.transfer_check_status(submitted) == 0
    assert engine.send_probe(pair.name) == -102
    assert engine.unregister_memory(address_of(own)) == 0
    assert engine.free_managed_buffer(managed, 64) == 0
    assert engine.get_notifies() == []


def test_who_forks_before_initialize_may_initialize_in_the_child() -> None:
    code = (
        "import os, mooncake.engine as m; e = m.TransferEngine(); child = os.fork(); "
        "c = e.initialize('127.0.0.1', 'P2PHANDSHAKE', 'tcp', ''); "
        "c = c or e.send_probe(f'127.0.0.1:{e.get_rpc_port()}'); "
        "c = c or (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0); os._exit(c)"
    )
    environment = {**os.environ, "PYTHONPATH": FOLDER}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_opcodes_that_are_none_are_refused(engine: TransferEngine) -> None:
    with pytest.raises(ValueError, match="2"):
        TransferOpcode(2)
    with pytest.raises(TypeError):
        engine.transfer_sync("127.0.0.1:1", 1, 1, 1, 0)  # type: ignore[arg-type]


def in_child(run: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        # Whatever happens, this must not go on to be a second run of the tests.
        try:
            os._exit(0 if run() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def in_threads(count: int, run: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(thread: int) -> None:
        try:
            run(thread)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(thread,)) for thread in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
