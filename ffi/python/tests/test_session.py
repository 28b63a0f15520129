"""Sessions and the directory of ranks."""

from __future__ import annotations

import asyncio
import dataclasses
import resource
from collections.abc import Callable

import numpy as np
import pytest

import kvx

Make = Callable[..., kvx.Engine]
LAYERS, BLOCKS, BLOCK_BYTES = 4, 8, 512


def pool_of(engine: kvx.Engine) -> tuple[kvx.KvPool, np.ndarray]:
    region = engine.allocate(2 * LAYERS * BLOCKS * BLOCK_BYTES, kvx.Rights.NONE)
    layout = kvx.Layout(
        attention=kvx.Attention.KEY_VALUE,
        dtype=kvx.DType.BF16,
        layers=LAYERS,
        block_tokens=16,
        blocks=BLOCKS,
        head_size=8,
        block_stride=BLOCK_BYTES,
        token_stride=32,
        head_stride=16,
        heads_count=2,
        heads_total=2,
        pools=[(0, pool * BLOCKS * BLOCK_BYTES) for pool in range(2 * LAYERS)],
    )
    cells = np.frombuffer(region.buffer, np.uint8).reshape(2 * LAYERS, BLOCKS, BLOCK_BYTES)
    return kvx.KvPool(layout, [region]), cells


def test_a_session_moves_blocks_layer_by_layer(make_engine: Make) -> None:
    prefill, decode = make_engine("prefill"), make_engine("decode")
    (ours, source), (theirs, target) = pool_of(prefill), pool_of(decode)
    source[:] = np.random.default_rng(5).integers(1, 256, source.shape, np.uint8)

    async def main() -> None:
        peer = await decode.connect(prefill.address)
        key = kvx.SessionKey(room=42, attempt=1)
        receiver = peer.receiver(key, theirs, 40, [6, 1, 3])
        sender = prefill.sender(key, ours)
        assert await sender.granted() == (40, range(LAYERS))
        for layer in range(LAYERS):
            await sender.write(range(layer, layer + 1), [0, 5, 2])
            await receiver.layer(layer)
            assert receiver.arrived == layer + 1
        finished = sender.finish(b"token 7")
        assert await receiver.done() == b"token 7"
        assert (await finished).bytes == 2 * LAYERS * 40 * 32

    asyncio.run(main())
    for pool in range(2 * LAYERS):
        assert (target[pool, [6, 1]] == source[pool, [0, 5]]).all()
        assert (target[pool, 3, :256] == source[pool, 2, :256]).all(), "8 tokens of the last"
        assert not target[pool, 3, 256:].any()
        assert not target[pool, [0, 2, 4, 5, 7]].any()


def test_dropping_a_sender_aborts_the_session(make_engine: Make) -> None:
    prefill, decode = make_engine("prefill"), make_engine("decode")
    (ours, _), (theirs, _) = pool_of(prefill), pool_of(decode)
    peer = decode.connect(prefill.address).wait(20)
    receiver = peer.receiver(kvx.SessionKey(1), theirs, 16, [0])
    sender = prefill.sender(kvx.SessionKey(1), ours)
    sender.granted().wait(20)
    del sender
    with pytest.raises(kvx.AbortedError):
        receiver.done().wait(20)


def test_the_receiver_hears_the_reason(make_engine: Make) -> None:
    prefill, decode = make_engine("prefill"), make_engine("decode")
    (ours, _), (theirs, _) = pool_of(prefill), pool_of(decode)
    peer = decode.connect(prefill.address).wait(20)
    receiver = peer.receiver(kvx.SessionKey(2), theirs, 16, [0])
    sender = prefill.sender(kvx.SessionKey(2), ours)
    sender.granted().wait(20)
    sender.abort("out of blocks")
    with pytest.raises(kvx.AbortedError, match="out of blocks"):
        receiver.done().wait(20)
    with pytest.raises(kvx.UnknownHandleError):
        sender.granted()
    receiver.close()


@pytest.mark.parametrize("reason", ["a\0b", "\ud800"])
def test_a_session_goes_on_if_its_end_is_refused(make_engine: Make, reason: str) -> None:
    prefill, decode = make_engine("prefill"), make_engine("decode")
    (ours, source), (theirs, target) = pool_of(prefill), pool_of(decode)
    source[:] = 7
    peer = decode.connect(prefill.address).wait(20)
    receiver = peer.receiver(kvx.SessionKey(3), theirs, 16, [0])
    sender = prefill.sender(kvx.SessionKey(3), ours)
    sender.granted().wait(20)
    with pytest.raises(kvx.InvalidError, match="reason"):
        receiver.close(reason)
    with pytest.raises(kvx.InvalidError, match="reason"):
        sender.abort(reason)
    sender.write(range(LAYERS), [0]).wait(20)
    assert (target[:, 0] == 7).all()
    receiver.close("enough")
    sender.abort()
    for closed in (receiver.close, sender.abort):
        with pytest.raises(kvx.UnknownHandleError):
            closed()


def test_a_sender_that_could_not_finish_may_try_again(make_engine: Make) -> None:
    prefill, decode = make_engine("prefill"), make_engine("decode")
    (ours, _), (theirs, _) = pool_of(prefill), pool_of(decode)
    peer = decode.connect(prefill.address).wait(20)
    receiver = peer.receiver(kvx.SessionKey(4), theirs, 16, [0])
    sender = prefill.sender(kvx.SessionKey(4), ours)
    sender.granted().wait(20)
    sender.write(range(LAYERS), [0]).wait(20)
    payload = np.zeros(1 << 30, np.uint8)
    with open("/proc/self/statm") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), hard))
    try:
        with pytest.raises(kvx.OutOfMemoryError):
            sender.finish(payload)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    finished = sender.finish(b"token 7")
    assert receiver.done().wait(20) == b"token 7"
    finished.wait(20)


def test_a_payload_is_the_bytes_of_what_has_a_buffer(make_engine: Make) -> None:
    prefill, decode = make_engine("prefill"), make_engine("decode")
    (ours, _), (theirs, _) = pool_of(prefill), pool_of(decode)
    peer = decode.connect(prefill.address).wait(20)
    receiver = peer.receiver(kvx.SessionKey(5), theirs, 16, [0])
    sender = prefill.sender(kvx.SessionKey(5), ours)
    sender.granted().wait(20)
    sender.write(range(LAYERS), [0]).wait(20)
    tokens = np.arange(4, dtype=np.int64)
    sender.finish(tokens)
    assert receiver.done().wait(20) == tokens.tobytes()


def test_numbers_and_names_that_are_none_are_errors(make_engine: Make) -> None:
    engine = make_engine()
    pool, _ = pool_of(engine)
    peer = engine.connect(make_engine().address).wait(20)
    for key in (kvx.SessionKey(1 << 64), kvx.SessionKey(-1), kvx.SessionKey(1, 1 << 32)):
        with pytest.raises(kvx.InvalidError, match=r"room|attempt"):
            engine.sender(key, pool)
        with pytest.raises(kvx.InvalidError, match=r"room|attempt"):
            peer.receiver(key, pool, 16, [0])
    with pytest.raises(kvx.InvalidError, match="tokens"):
        peer.receiver(kvx.SessionKey(1), pool, -1, [0])
    receiver = peer.receiver(kvx.SessionKey(1), pool, 16, [0])
    with pytest.raises(kvx.InvalidError, match="layer"):
        receiver.layer(-1)
    sender = engine.sender(kvx.SessionKey(1), pool)
    for layers in (range(-1, 1), range(1 << 32, 1 << 33), range(1 << 70), range(0, 4, 2)):
        with pytest.raises(kvx.InvalidError, match="layer"):
            sender.write(layers, [0])
    for rank in (
        kvx.Rank("x\0y"),
        kvx.Rank("\ud800"),
        kvx.Rank(dp=-1),
        kvx.Rank(pp=1 << 32),
        kvx.Rank(tp=1 << 64),
    ):
        for use in (engine.serve_rank, peer.register_rank, peer.find_rank):
            with pytest.raises(kvx.InvalidError, match=r"instance|dp|pp|tp"):
                use(rank)


def test_layouts_that_make_no_sense_are_errors(make_engine: Make) -> None:
    engine = make_engine()
    pool, _ = pool_of(engine)
    with pytest.raises(kvx.InvalidError):
        engine.sender(kvx.SessionKey(1), pool).write(range(0, 9), [0])
    layout = kvx.Layout(
        attention=kvx.Attention.LATENT,
        dtype=kvx.DType.BF16,
        layers=1,
        block_tokens=16,
        blocks=4,
        head_size=8,
        block_stride=256,
        token_stride=16,
        head_stride=16,
        pools=[(0, 4096)],
    )
    with pytest.raises(kvx.InvalidError):
        kvx.KvPool(layout, [engine.allocate(4096)])
    with pytest.raises(kvx.InvalidError):
        kvx.KvPool(layout, [])
    for odd in ({"layers": -1}, {"block_stride": 1 << 64}, {"pools": [(0, -1)]}):
        with pytest.raises(kvx.InvalidError, match=next(iter(odd))):
            kvx.KvPool(dataclasses.replace(layout, **odd), [engine.allocate(4096)])


def test_ranks_are_found_in_the_directory(make_engine: Make) -> None:
    first, second, third = make_engine("first"), make_engine("second"), make_engine("third")
    first.serve_rank(kvx.Rank("prefill", tp=0))
    there = second.connect(first.address).wait(20)
    there.register_rank(kvx.Rank("prefill", tp=1))
    here = third.connect(first.address).wait(20)
    found = here.find_rank(kvx.Rank("prefill", tp=1), wait=20).wait(20)
    assert found == (second.address, second.id)
    found = here.find_rank(kvx.Rank("prefill", tp=0)).wait(20)
    assert found is not None
    assert found.engine == first.id
    assert here.find_rank(kvx.Rank("prefill", tp=2)).wait(20) is None
    with pytest.raises(kvx.InvalidError):
        here.find_rank(kvx.Rank("x" * 256)).wait(20)
