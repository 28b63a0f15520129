"""Prefill and decode in two processes: a prompt's KV cache in numpy arrays, moved layer by layer.

python prefill_decode.py
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np

import kvx

LAYERS, BLOCKS, BLOCK_TOKENS, HEADS, HEAD_SIZE = 16, 256, 16, 8, 128
TOKENS = 1000
PROMPT_BLOCKS = -(-TOKENS // BLOCK_TOKENS)
KEY = kvx.SessionKey(room=2026)


def make_pool(engine: kvx.Engine) -> tuple[np.ndarray, kvx.KvPool]:
    """A cache as [layer, K or V, block, token, head, element], and what kvx knows of it."""
    shape = (LAYERS, 2, BLOCKS, BLOCK_TOKENS, HEADS, HEAD_SIZE)
    region = engine.allocate(2 * int(np.prod(shape)), kvx.Rights.NONE)
    cache = np.frombuffer(region.buffer, np.float16).reshape(shape)
    layout = kvx.Layout(
        attention=kvx.Attention.KEY_VALUE,
        dtype=kvx.DType.FP16,
        layers=LAYERS,
        block_tokens=BLOCK_TOKENS,
        blocks=BLOCKS,
        head_size=HEAD_SIZE,
        block_stride=cache.strides[2],
        token_stride=cache.strides[3],
        head_stride=cache.strides[4],
        heads_count=HEADS,
        heads_total=HEADS,
        pools=[(0, pool * cache.strides[1]) for pool in range(2 * LAYERS)],
    )
    return cache, kvx.KvPool(layout, [region])


def compute(layer: int) -> np.ndarray:
    """What prefill computes for a layer: K and V of every token."""
    shape = (2, PROMPT_BLOCKS * BLOCK_TOKENS, HEADS, HEAD_SIZE)
    return np.random.default_rng(layer).standard_normal(shape).astype(np.float16)


def prefill() -> None:
    """The sender: says where it is, and writes layers as they are computed."""
    with kvx.Engine() as engine:
        cache, pool = make_pool(engine)
        print(engine.address, flush=True)
        sender = engine.sender(KEY, pool, deadline=60)
        print("granted:", sender.granted().wait(), file=sys.stderr)
        blocks = np.random.default_rng(1).permutation(BLOCKS)[:PROMPT_BLOCKS]
        written = []
        for layer in range(LAYERS):
            values = compute(layer).reshape(2, PROMPT_BLOCKS, BLOCK_TOKENS, HEADS, HEAD_SIZE)
            cache[layer][:, blocks] = values
            written.append(sender.write(range(layer, layer + 1), blocks))
        for operation in written:
            operation.wait()
        report = sender.finish(b"first token: 42").wait()
        print(f"sent {report.bytes} bytes in {report.runs} runs", file=sys.stderr)


def decode(address: str) -> None:
    """The receiver: grants blocks of its own, and goes on layer by layer."""
    with kvx.Engine() as engine:
        cache, pool = make_pool(engine)
        peer = engine.connect(address).wait()
        blocks = np.arange(PROMPT_BLOCKS) * 2 + 1
        receiver = peer.receiver(KEY, pool, TOKENS, blocks)
        for layer in range(LAYERS):
            receiver.layer(layer).wait()
            found = cache[layer][:, blocks].reshape(2, -1, HEADS, HEAD_SIZE)[:, :TOKENS]
            assert (found == compute(layer)[:, :TOKENS]).all(), f"layer {layer} differs"
        print(f"{LAYERS} layers of {TOKENS} tokens are equal;", receiver.done().wait().decode())
        receiver.close()


def main() -> None:
    if len(sys.argv) > 1:
        return prefill()
    command = [sys.executable, __file__, "prefill"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            decode(child.stdout.readline().strip())
        except BaseException:
            child.kill()
            raise


if __name__ == "__main__":
    main()
