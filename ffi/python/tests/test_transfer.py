"""One-sided transfers and notifications between two engines."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Pair

import kvx
from kvx import notification
from kvx._call import lib


def fill(region: kvx.Region) -> np.ndarray:
    bytes_of = np.frombuffer(region.buffer, np.uint8)
    bytes_of[:] = np.random.default_rng(7).integers(0, 256, len(bytes_of), np.uint8)
    return bytes_of


def test_scattered_spans_land_where_they_were_told(pair: Pair) -> None:
    source = fill(pair.source)
    target = np.frombuffer(pair.target.buffer, np.uint8)
    order = np.random.default_rng(1).permutation(64)
    ours = pair.a.spans(pair.source, np.arange(64) * 1024, np.full(64, 100))
    theirs = pair.peer.spans(np.arange(64) * 1024 + 5, np.full(64, 100))
    prepared = kvx.prepare("WRITE", ours, theirs, range(64), order)
    assert prepared.size == (6400, 64)
    assert prepared.post().wait(10) == (6400, 64)
    for span, cell in enumerate(order):
        wanted = source[span * 1024 : span * 1024 + 100]
        assert (target[cell * 1024 + 5 : cell * 1024 + 105] == wanted).all()
        assert not target[cell * 1024 : cell * 1024 + 5].any()


def test_a_read_brings_what_the_peer_has(pair: Pair) -> None:
    wanted = fill(pair.target).copy()
    ours = pair.a.spans_at([pair.source], [pair.source.address], [1 << 16])
    theirs = pair.peer.spans_at([pair.target.address], [1 << 16])
    assert kvx.prepare(kvx.Op.READ, ours, theirs).post().wait(10).bytes == 1 << 16
    assert (np.frombuffer(pair.source.buffer, np.uint8) == wanted).all()


def test_a_notification_follows_the_data(pair: Pair) -> None:
    fill(pair.source)
    ours = pair.a.spans(pair.source, [0], [1 << 16])
    theirs = pair.peer.spans([0], [1 << 16])
    kvx.prepare("WRITE", ours, theirs).post(b"all there")
    told = pair.b.wait_notification(10)
    assert told is not None
    assert (told.data, told.engine) == (b"all there", pair.a.id)
    assert bytes(pair.target.buffer) == bytes(pair.source.buffer)
    assert pair.b.poll_notification() is None


def test_a_notification_of_an_engine_that_is_not_known_is_taken(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unknowing:
        def __getattr__(self, name: str) -> object:
            if name == "kvx_notification_engine":
                return lambda *_: kvx.Status.PENDING
            return getattr(lib, name)

    pair.peer.notify(b"from somebody").wait(10)
    monkeypatch.setattr(notification, "lib", Unknowing())
    told = pair.b.poll_notification()
    assert told is not None
    assert (told.data, told.engine) == (b"from somebody", b"")


def test_notifications_that_wait_are_counted(pair: Pair) -> None:
    assert pair.b.waiting_notifications == 0
    pair.peer.notify(b"one").wait(10)
    pair.peer.notify(b"two").wait(10)
    assert pair.b.waiting_notifications == 2
    assert [pair.b.wait_notification(10).data, pair.b.waiting_notifications] == [b"one", 1]
    pair.b.close()
    assert pair.b.waiting_notifications <= 1


def test_a_prepared_transfer_is_posted_more_than_once(pair: Pair) -> None:
    data = fill(pair.source)
    prepared = kvx.prepare("WRITE", pair.a.spans(pair.source, [0], [9]), pair.peer.spans([0], [9]))
    for first in range(5):
        data[0] = first
        prepared.post().wait(10)
        assert pair.target.buffer[0] == first


@pytest.mark.parametrize(
    ("local", "remote", "says"),
    [
        ([0, 64], [0, 1], "64 is not below 64"),
        ([0, 1], [0, 64], "64 is not below 64"),
        ([0, -1], [0, 1], "-1 is negative"),
        ([0], [0, 1], "1 local against 2 remote"),
        ([0, 1 << 32], [0, 1], "not below 2^32"),
        ([0.0, 1.0], [0, 1], "no type of integers"),
        ([[0, 1]], [0, 1], "2 dimensions"),
        ([0, 1], None, "one side only"),
    ],
)
def test_wrong_indices_are_errors(pair: Pair, local: object, remote: object, says: str) -> None:
    ours = pair.a.spans(pair.source, np.arange(64), np.ones(64, np.uint64))
    theirs = pair.peer.spans(np.arange(64), np.ones(64, np.uint64))
    with pytest.raises(kvx.InvalidError, match=says.replace("^", r"\^")):
        kvx.prepare("WRITE", ours, theirs, local, remote)


def test_columns_may_lie_anywhere(pair: Pair) -> None:
    raw = bytes(4) + np.array([8, 64], np.uint64).tobytes() + np.array([0, 1], np.uint32).tobytes()
    odd = np.frombuffer(raw, np.uint64, 2, offset=4)
    assert not odd.flags.aligned
    indices = np.frombuffer(b"x" + raw[20:], np.uint32, offset=1)
    ours = pair.a.spans(pair.source, odd, odd)
    theirs = pair.peer.spans(odd.astype(">u8"), odd[::1])
    assert kvx.prepare("WRITE", ours, theirs, indices, indices).size.bytes == 72


def test_spans_outside_of_their_region_are_errors(pair: Pair) -> None:
    base = pair.target.address
    for address, length in [(base - 1, 1), (base + (1 << 16), 1), (base, (1 << 16) + 1)]:
        with pytest.raises(kvx.InvalidError, match="no region holds"):
            pair.peer.spans_at([address], [length])
    with pytest.raises(kvx.InvalidError, match="no region holds"):
        pair.a.spans_at([pair.source], [base], [1])
    with pytest.raises(kvx.InvalidError, match="outside the region"):
        kvx.prepare("WRITE", pair.a.spans(pair.source, [0], [1]), pair.peer.spans([1 << 16], [1]))
    with pytest.raises(kvx.InvalidError, match="2 offsets, 1 lengths"):
        pair.peer.spans([0, 1], [1])


def test_an_unknown_direction_is_an_error(pair: Pair) -> None:
    ours, theirs = pair.a.spans(pair.source, [0], [1]), pair.peer.spans([0], [1])
    with pytest.raises(kvx.InvalidError, match="neither 'WRITE' nor 'READ'"):
        kvx.prepare("APPEND", ours, theirs)
    with pytest.raises(kvx.InvalidError):
        kvx.prepare("WRITE", theirs, ours)


def test_the_owner_refuses_what_a_region_does_not_allow(pair: Pair) -> None:
    closed = pair.b.allocate(4096, kvx.Rights.READ)
    peer = pair.a.add_peer(pair.b.metadata([closed]))
    ours = pair.a.spans(pair.source, [0], [1])
    assert peer.regions == [(closed.address, 4096, kvx.Rights.READ, -1)]
    with pytest.raises(kvx.RefusedError):
        kvx.prepare("WRITE", ours, peer.spans([0], [1])).post().wait(10)
    kvx.prepare("READ", ours, peer.spans([0], [1])).post().wait(10)


def test_a_deregistered_region_is_refused(pair: Pair) -> None:
    write = kvx.prepare("WRITE", pair.a.spans(pair.source, [0], [1]), pair.peer.spans([0], [1]))
    write.post().wait(10)
    pair.target.deregister()
    with pytest.raises(kvx.RefusedError):
        write.post().wait(10)
    with pytest.raises(kvx.UnknownHandleError):
        pair.target.deregister()


def test_a_peer_that_is_added_again_brings_its_regions_along(pair: Pair) -> None:
    more = pair.b.allocate(4096)
    np.frombuffer(more.buffer, np.uint8)[:] = 9
    again = pair.a.add_peer(pair.b.metadata([more, pair.target]))
    both = pair.peer.joined(again)
    told = [pair.target.address, more.address, pair.target.address]
    assert [region.address for region in both.regions] == told
    ours = pair.a.spans(pair.source, [0, 64], [64, 64])
    theirs = both.spans([0, 0], [64, 64], [0, 1])
    wanted = fill(pair.target)[:64].tobytes()
    assert kvx.prepare("READ", ours, theirs).post().wait(10).bytes == 128
    assert bytes(pair.source.buffer[:128]) == wanted + b"\t" * 64


def test_only_the_same_peer_is_joined(pair: Pair) -> None:
    with pytest.raises(kvx.InvalidError):
        pair.peer.joined(pair.a.myself())


def test_an_engine_is_a_peer_of_its_own(pair: Pair) -> None:
    fill(pair.source)
    other = pair.a.allocate(1 << 16)
    ours = pair.a.spans(pair.source, [0], [1 << 16])
    theirs = pair.a.myself().spans_at([other.address], [1 << 16])
    kvx.prepare("WRITE", ours, theirs).post(b"own").wait(10)
    assert bytes(other.buffer) == bytes(pair.source.buffer)
    told = pair.a.wait_notification(10)
    assert told is not None
    assert told.data == b"own"


def test_many_spans_cost_no_loop(pair: Pair) -> None:
    count = 20_000
    a, b = pair.a, pair.b
    source, target = a.allocate(count * 8), b.allocate(count * 8)
    data = fill(source)
    peer = a.add_peer(b.metadata([target]))
    order = np.random.default_rng(3).permutation(count)
    ours = a.spans(source, np.arange(count) * 8, np.full(count, 8))
    theirs = peer.spans(np.arange(count) * 8, np.full(count, 8))
    kvx.prepare("WRITE", ours, theirs, np.arange(count), order).post().wait(30)
    landed = np.frombuffer(target.buffer, np.uint64)
    assert (landed[order] == data.view(np.uint64)).all()
