"""The faults that Mooncake's users know: each is survived, and healthy peers are served."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from cases import READ, WRITE
from world import Pair, World

MIB = 1 << 20
HASTY = {"MC_TRANSFER_TIMEOUT": "5"}
"""The shortest deadline that there is."""


def test_without_the_auth_key_nothing_is_learnt_read_or_written(
    world: World, tmp_path: Path
) -> None:
    keys = [key_file(tmp_path / name) for name in ("one", "other")]
    target = world.worker({"KVX_AUTH_KEY_FILE": keys[0]})
    stranger = world.worker({"KVX_AUTH_KEY_FILE": keys[1], "MC_TRANSFER_TIMEOUT": "5"})
    friend = world.worker({"KVX_AUTH_KEY_FILE": keys[0]})
    stranger.start()
    friend.start()
    name = target.start()
    far = target.buffer("b", 4096, fill=1)
    assert target.call("register_memory", far, 4096) == 0
    near = stranger.buffer("a", 4096, fill=7)
    assert stranger.call("transfer_sync_write", name, near, far, 4096) == -1
    assert stranger.call("transfer_sync_read", name, near, far, 4096) == -1
    assert stranger.call("get_first_buffer_address", name) == 0
    assert stranger.call("send_probe", name) == -102
    assert target.read("b", 0, 4096) == bytes([1]) * 4096
    assert stranger.read("a", 0, 4096) == bytes([7]) * 4096
    told = stranger.call("transfer_sync", name, near, far, 1, WRITE, {"$notify": ["n", "m"]})
    assert (told, target.call("get_notifies")) == (-1, [])
    near = friend.buffer("a", 4096, fill=9)
    assert friend.call("transfer_sync_write", name, near, far, 4096) == 0


def test_a_stranger_that_asks_as_mooncake_does_learns_nothing(world: World) -> None:
    pair = world.pair()
    request = b'{"type":1,"name":"x"}'
    for head in (struct.pack("<Q", len(request)), bytes([0]) + struct.pack("<Q", len(request))):
        with connected(pair.name) as stranger:
            stranger.sendall(head + request)
            heard = received(stranger)
        assert hex(pair.far)[2:].encode() not in heard
        assert str(pair.far).encode() not in heard
    assert_serves(pair)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"\0" * 4096,
        b"\xff" * 4096,
        struct.pack("<Q", 1 << 62) + b"x" * 100,
        bytes([1]) + struct.pack("<Q", 9) + b"{malforme",
        b"GET /metadata HTTP/1.1\r\n\r\n",
    ],
)
def test_a_malformed_handshake_harms_nobody(world: World, message: bytes) -> None:
    pair = world.pair()
    for _ in range(4):
        with connected(pair.name) as stranger:
            stranger.sendall(message)
    assert_serves(pair)


def test_clients_that_say_nothing_keep_nobody_waiting(world: World) -> None:
    # The deadline for connecting is shorter than the time for which each of them may be silent.
    initiator = world.worker({"MC_HANDSHAKE_CONNECT_TIMEOUT": "2"})
    initiator.start()
    target = world.worker()
    name = target.start()
    silent = [connected(name) for _ in range(300)]
    assert initiator.call("send_probe", name) == 0
    for stranger in silent:
        stranger.close()


def test_a_stopped_peer_keeps_nobody_from_the_others(world: World) -> None:
    initiator, stopped, healthy = world.worker(), world.worker(), world.worker()
    initiator.start()
    near = initiator.buffer("a", 8 * MIB, fill=7)
    names = [stopped.start(), healthy.start()]
    far = [peer.buffer("b", 8 * MIB) for peer in (stopped, healthy)]
    for peer, place, name in zip((stopped, healthy), far, names):
        assert peer.call("register_memory", place, 8 * MIB) == 0
        assert initiator.call("transfer_sync_write", name, near, place, 8 * MIB) == 0
    stopped.stop()
    writes = [f"write {number}" for number in range(8)]
    for write in writes:
        initiator.begin(write, "transfer_sync_write", names[0], near, far[0], 8 * MIB)
    for _ in range(20):
        assert initiator.call("transfer_sync_write", names[1], near, far[1], 8 * MIB) == 0
        assert initiator.call("transfer_sync_read", names[1], near, far[1], 4096) == 0
    # Also for one who has to connect first.
    newcomer = world.worker()
    name = newcomer.start()
    place = newcomer.buffer("b", 4096)
    assert newcomer.call("register_memory", place, 4096) == 0
    assert initiator.call("transfer_sync_write", name, near, place, 4096) == 0
    assert initiator.join(writes[0], seconds=0) == "under way"
    stopped.go_on()
    assert [initiator.join(write) for write in writes] == [0] * len(writes)


def test_a_peer_that_was_never_reached_and_is_stopped_keeps_nobody_from_the_others(
    world: World,
) -> None:
    pair = world.pair()
    stopped = world.worker()
    name = stopped.start()
    stopped.stop()
    pair.initiator.begin("write", "transfer_sync_write", name, pair.near, pair.far, 10)
    assert_serves(pair)
    assert pair.initiator.join("write", seconds=0) == "under way"
    stopped.go_on()
    # The address is registered with the other target alone.
    assert pair.initiator.join("write") == -1


def test_a_stopped_peer_does_not_answer_a_probe(world: World) -> None:
    initiator = world.worker({"MC_HANDSHAKE_CONNECT_TIMEOUT": "1"})
    initiator.start()
    known, unknown = world.worker(), world.worker()
    names = [known.start(), unknown.start()]
    # Connects, with the time that a transfer has.
    assert initiator.call("transfer_sync_write", names[0], 0, 0, 0) == 0
    for peer in (known, unknown):
        peer.stop()
    for name in names:
        initiator.begin(name, "send_probe", name)
    assert [initiator.join(name) for name in names] == [-102, -102]
    for peer in (known, unknown):
        peer.go_on()
    for name in names:
        # However long it takes to wake up.
        while (code := initiator.call("send_probe", name)) == -102:
            pass
        assert code == 0


def test_a_write_that_failed_on_its_deadline_never_lands(world: World) -> None:
    """However it was begun: each from a process of its own to one of its own."""
    length, half = 32 * MIB, 16 * MIB
    pairs = alone, batch, begun, submitted = [world.pair(length, HASTY) for _ in range(4)]
    for pair in pairs:
        pair.initiator.do("pattern", name="a", seed=1)
        write = ("transfer_sync_write", pair.name, pair.near, pair.far, length)
        assert pair.initiator.call(*write) == 0
        pair.initiator.do("pattern", name="a", seed=2)
    for pair in pairs:
        pair.target.stop()
    halves = ([batch.near, batch.near + half], [batch.far, batch.far + half], [half] * 2)
    whole = ([begun.near], [begun.far], [length])
    one = (submitted.near, submitted.far, length)
    alone.initiator.begin("write", "transfer_sync_write", alone.name, alone.near, alone.far, length)
    batch.initiator.begin("write", "batch_transfer_sync_write", batch.name, *halves)
    waited = begun.initiator.call("batch_transfer_async_write", begun.name, *whole)
    begun.initiator.begin("write", "get_batch_transfer_status", [waited])
    checked = submitted.initiator.call("transfer_submit_write", submitted.name, *one)
    assert 0 not in (waited, checked)
    while (code := submitted.initiator.call("transfer_check_status", checked)) == 0:
        pass
    assert code == -2
    assert submitted.initiator.call("transfer_check_status", checked) == -2
    assert [pair.initiator.join("write") for pair in (alone, batch, begun)] == [-1] * 3
    for pair in pairs:
        assert re.search(r"WRITE of .* failed: .*deadline: ", pair.initiator.log())
        pair.target.go_on()
        # By the time that this is served, all that was sent before has been dealt with.
        place = pair.target.buffer("c", 4096)
        assert pair.target.call("register_memory", place, 4096) == 0
        write = ("transfer_sync_write", pair.name, pair.near, place, 4096)
        assert pair.initiator.call(*write) == 0
        assert pair.target.do("check", name="b", seed=1)


def test_a_batch_may_be_of_any_size(world: World) -> None:
    pair = world.pair(length=100_000 * 16)
    pair.initiator.do("pattern", name="a", seed=5)
    near, far = ({"$range": [base, 100_000, 16]} for base in (pair.near, pair.far))
    lengths = {"$range": [16, 100_000, 0]}
    write = ("batch_transfer_sync_write", pair.name, near, far, lengths)
    assert pair.initiator.call(*write) == 0
    assert pair.target.do("check", name="b", seed=5)
    pair.target.do("pattern", name="b", seed=6)
    backwards = {"$range": [pair.near + 99_999 * 16, 100_000, -16]}
    there = {"$range": [pair.far + 99_999 * 16, 100_000, -16]}
    read = ("batch_transfer_sync_read", pair.name, backwards, there, lengths)
    assert pair.initiator.call(*read) == 0
    assert pair.initiator.do("check", name="a", seed=6)


def test_requests_that_are_refused_leave_no_trace(world: World) -> None:
    pair = world.pair()
    for _ in range(20):
        code = pair.initiator.call("transfer_sync_write", pair.name, pair.near, pair.far + MIB, 10)
        assert code == -1
        assert_serves(pair)


def test_a_refused_batch_writes_nothing_after_it_has_failed(world: World) -> None:
    pair = world.pair()
    # The target takes the second buffer away while the initiator still believes in it.
    other = pair.target.buffer("c", 4096, fill=1)
    assert pair.target.call("register_memory", other, 4096) == 0
    assert pair.initiator.call("transfer_sync_write", pair.name, pair.near, other, 4096) == 0
    assert pair.target.call("unregister_memory", other) == 0
    pair.target.do("pattern", name="c", seed=3)
    both = ([pair.near] * 2, [pair.far, other], [4096] * 2)
    assert pair.initiator.call("batch_transfer_sync_write", pair.name, *both) == -1
    assert pair.target.do("check", name="c", seed=3)
    pair.target.do("pattern", name="b", seed=4)
    assert_serves(pair, length=0)
    assert pair.target.do("check", name="b", seed=4)


def test_ids_that_stand_for_nothing_are_codes(world: World) -> None:
    pair = world.pair()
    call = pair.initiator.call
    batch = call("batch_transfer_async_write", pair.name, [pair.near], [pair.far], [10])
    for number in (0, 1 << 20, (1 << 64) - 1):
        assert call("get_batch_transfer_status", [number]) == -1
        assert call("transfer_check_status", number) == -1
    assert call("get_batch_transfer_status", [1 << 20, batch]) == -1
    assert call("transfer_check_status", batch) == -1, "it was spent with the other"
    assert_serves(pair)


def test_every_method_before_initialize_is_a_code(world: World) -> None:
    worker = world.worker()
    worker.do("new")
    one = ("127.0.0.1:1", 1, 1, 1)
    lists = ("127.0.0.1:1", [1], [1], [1])
    codes = [
        worker.call("get_rpc_port"),
        worker.call("register_memory", 4096, 10),
        worker.call("unregister_memory", 4096),
        worker.call("batch_register_memory", [4096], [10]),
        worker.call("batch_unregister_memory", [4096]),
        worker.call("transfer_sync_write", *one),
        worker.call("transfer_sync_read", *one),
        worker.call("transfer_sync", *one, READ),
        worker.call("batch_transfer_sync_write", *lists),
        worker.call("batch_transfer_sync_read", *lists),
        worker.call("batch_transfer_sync", *lists, WRITE),
        worker.call("get_batch_transfer_status", [1]),
        worker.call("transfer_check_status", 1),
        worker.call("send_probe", "127.0.0.1:1"),
        worker.call("free_managed_buffer", 4096, 1),
    ]
    assert codes == [-1] * len(codes)
    assert worker.call("batch_transfer_async", *lists, READ) == 0
    assert worker.call("get_notifies") == []
    # It can be initialized all the same.
    assert worker.call("initialize", "127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0


def test_unregistering_at_the_target_ends_what_is_under_way(world: World) -> None:
    """There is no cancel in the interface: this is how either side ends a transfer."""
    target, reader = world.worker(), world.worker()
    name = target.start()
    reader.start()
    length = 64 * MIB
    far, near = target.buffer("b", length, fill=1), reader.buffer("r", length)
    assert target.call("register_memory", far, length) == 0
    assert reader.call("transfer_sync_read", name, near, far, 4096) == 0
    reads = [reader.call("batch_transfer_async_read", name, [near], [far], [length])]
    reads += [reader.call("batch_transfer_async_write", name, [near], [far], [length])]
    reader.stop()
    assert target.call("unregister_memory", far) == 0
    target.do("pattern", name="b", seed=1)
    reader.go_on()
    for read in reads:
        assert reader.call("get_batch_transfer_status", [read]) in (0, -1)
    assert target.do("check", name="b", seed=1)
    assert reader.call("transfer_sync_write", name, near, far, 4096) == -1


def test_a_write_whose_buffer_is_unregistered_is_over_when_its_target_knows(world: World) -> None:
    initiator, target = world.worker(), world.worker()
    initiator.start()
    name = target.start()
    length = 64 * MIB
    near, far = initiator.buffer("a", length, fill=7), target.buffer("b", length)
    assert target.call("register_memory", far, length) == 0
    assert initiator.call("register_memory", near, length) == 0
    assert initiator.call("transfer_sync_write", name, near, far, 4096) == 0
    target.stop()
    batch = initiator.call("batch_transfer_async_write", name, [near], [far], [length])
    assert initiator.call("unregister_memory", near) == 0
    # Bytes may lie at the target, where nobody looks at them yet.
    for _ in range(1000):
        assert initiator.call("transfer_check_status", batch) == 0
    target.go_on()
    assert initiator.call("get_batch_transfer_status", [batch]) == -1
    target.do("pattern", name="b", seed=2)
    other = target.buffer("c", 4096)
    assert target.call("register_memory", other, 4096) == 0
    assert initiator.call("transfer_sync_write", name, near, other, 4096) == 0
    assert target.do("check", name="b", seed=2)


@pytest.mark.parametrize("method", ["transfer_sync_write", "transfer_sync_read", "begun"])
def test_memory_that_its_owner_has_registered_anew_is_reached(world: World, method: str) -> None:
    pair = world.pair()
    a, b = pair.initiator, pair.target
    for _ in range(3):
        assert a.call("transfer_sync_write", pair.name, pair.near, pair.far, 4096) == 0
        # The initiator knows of the registration before, and hears of neither.
        assert b.call("unregister_memory", pair.far) == 0
        assert b.call("register_memory", pair.far, MIB) == 0
        if method == "begun":
            one = (pair.name, [pair.near], [pair.far], [MIB])
            batch = a.call("batch_transfer_async_write", *one)
            assert a.call("get_batch_transfer_status", [batch]) == 0
        else:
            assert a.call(method, pair.name, pair.near, pair.far, MIB) == 0


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_peer_that_is_restarted_at_its_port_is_reached_anew(
    world: World, ending: signal.Signals
) -> None:
    # A write that was under way when the target died fails at its deadline.
    initiator = world.worker(HASTY)
    initiator.start()
    near = initiator.buffer("a", 4096)
    port = free_port()
    fixed = {"MC_MIN_RPC_PORT": str(port), "MC_MAX_RPC_PORT": str(port)}
    for life in range(3):
        target = world.worker(fixed)
        name = target.start()
        assert name == f"127.0.0.1:{port}"
        # Elsewhere in each life: what was known of the last one is of no use.
        target.buffer("other", MIB * (life + 1))
        far = target.buffer("b", 4096)
        assert target.call("register_memory", far, 4096) == 0
        initiator.do("pattern", name="a", seed=life)
        told = {"$notify": [f"life {life}", ""]}
        assert initiator.call("transfer_sync", name, near, far, 4096, WRITE, told) == 0
        assert target.do("check", name="b", seed=life)
        assert [heard["name"] for heard in target.call("get_notifies")] == [f"life {life}"]
        target.signal(ending)
        target.process.wait()
        assert initiator.call("transfer_sync_write", name, near, far, 4096) == -1
        assert initiator.call("send_probe", name) == -102


def test_what_was_under_way_with_a_peer_that_was_restarted_fails(world: World) -> None:
    # As long as it takes, if nothing tells that the target is another now.
    initiator = world.worker({"MC_TRANSFER_TIMEOUT": "3600"})
    initiator.start()
    length = 64 * MIB
    near = initiator.buffer("a", length)
    port = free_port()
    fixed = {"MC_MIN_RPC_PORT": str(port), "MC_MAX_RPC_PORT": str(port)}
    target = world.worker(fixed)
    name = target.start()
    far = target.buffer("b", length)
    assert target.call("register_memory", far, length) == 0
    assert initiator.call("transfer_sync_write", name, near, far, 4096) == 0
    target.stop()
    for method in ("transfer_sync_write", "transfer_sync_read"):
        initiator.begin(method, method, name, near, far, length)
    target.signal(signal.SIGKILL)
    target.process.wait()
    target = world.worker(fixed)
    assert target.start() == name
    codes = [initiator.join(method) for method in ("transfer_sync_write", "transfer_sync_read")]
    assert codes == [-1, -1]


def test_an_engine_that_is_initialized_again_is_reached_anew(world: World) -> None:
    pair = world.pair()
    a, b = pair.initiator, pair.target
    assert a.call("transfer_sync_write", pair.name, pair.near, pair.far, 10) == 0
    assert b.call("initialize", "127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    assert a.call("transfer_sync_write", pair.name, pair.near, pair.far, 10) == -1
    name = f"127.0.0.1:{b.call('get_rpc_port')}"
    assert a.call("transfer_sync_write", name, pair.near, pair.far, 10) == -1, "not registered"
    assert b.call("register_memory", pair.far, 4096) == 0
    assert a.call("transfer_sync_write", name, pair.near, pair.far, 10) == 0


def test_transfers_that_their_target_does_not_survive_fail(world: World) -> None:
    """Those that cannot have landed at once, others when it is certain: at their deadline."""
    initiator = world.worker(HASTY)
    target = world.worker()
    initiator.start()
    name = target.start()
    length = 64 * MIB
    near, far = initiator.buffer("a", length, fill=7), target.buffer("b", length)
    assert target.call("register_memory", far, length) == 0
    assert initiator.call("transfer_sync_write", name, near, far, 4096) == 0
    target.stop()
    batch = initiator.call("batch_transfer_async_write", name, [near], [far], [length])
    assert batch > 0
    initiator.begin("write", "transfer_sync_write", name, near, far, length)
    initiator.begin("read", "transfer_sync_read", name, near, far, length)
    target.signal(signal.SIGKILL)
    target.process.wait()
    assert initiator.call("transfer_check_status", batch) == 0
    assert initiator.call("transfer_sync_write", name, near, far, 4096) == -1
    assert [initiator.join("write"), initiator.join("read")] == [-1, -1]
    assert initiator.call("get_batch_transfer_status", [batch]) == -1


def test_waiting_takes_no_processor_time(world: World) -> None:
    pair = world.pair(64 * MIB)
    write = ("transfer_sync_write", pair.name, pair.near, pair.far, 64 * MIB)
    assert pair.initiator.call(*write) == 0
    pair.target.stop()
    before = pair.initiator.do("cpu")
    for number in range(4):
        pair.initiator.begin(str(number), *write)
    assert pair.initiator.join("0", seconds=2) == "under way"
    # One thread that spins would take two.
    assert pair.initiator.do("cpu") - before < 1
    pair.target.go_on()
    assert [pair.initiator.join(str(number)) for number in range(4)] == [0] * 4


def test_off_loopback_a_key_is_required(world: World, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs root, unshare and ip, for a network of its own")
    script = 'ip link set lo up && ip addr add 10.77.0.1/32 dev lo && exec "$@"'
    namespace = ("unshare", "--net", "sh", "-c", script, "sh")
    if subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces are not allowed here")
    refused = world.worker(before=namespace)
    refused.do("new")
    assert refused.call("initialize", "10.77.0.1", "P2PHANDSHAKE", "tcp", "") == -1
    for word in ("KVX_AUTH_KEY_FILE", "KVX_INSECURE", "10.77.0.1"):
        assert word in refused.log()
    assert refused.call("get_rpc_port") == -1
    allowed = (
        {"KVX_AUTH_KEY_FILE": key_file(tmp_path / "key")},
        {"KVX_INSECURE": "1"},
        {"KVX_AUTH_KEY_FILE": key_file(tmp_path / "key2"), "MC_TCP_BIND_ADDRESS": "0.0.0.0"},
    )
    for environment in allowed:
        worker = world.worker(environment, before=namespace)
        name = worker.start("10.77.0.1")
        assert name.startswith("10.77.0.1:")
        near, far = worker.buffer("a", 4096, fill=7), worker.buffer("b", 4096)
        worker.start("10.77.0.1", engine="other")
        assert worker.call("register_memory", far, 4096) == 0
        assert worker.call("transfer_sync_write", name, near, far, 9, engine="other") == 0
        assert worker.call("transfer_sync_write", name, near, far, 9) == 0


def assert_serves(pair: Pair, length: int = 4096) -> None:
    """The target is alive, and a write to it lands."""
    write = ("transfer_sync_write", pair.name, pair.near, pair.far, length)
    assert pair.initiator.call(*write) == 0
    assert pair.target.read("b", 0, length) == pair.initiator.read("a", 0, length)


def connected(name: str) -> socket.socket:
    host, _, port = name.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def received(stranger: socket.socket) -> bytes:
    heard = b""
    try:
        while piece := stranger.recv(65536):
            heard += piece
    except ConnectionResetError:
        pass
    return heard


def key_file(path: Path) -> str:
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
