"""One-sided reads under asyncio: many requests fetch scattered blocks of a peer's memory at once.

python blocks_asyncio.py
"""

from __future__ import annotations

import asyncio

import numpy as np

import kvx

BLOCK, BLOCKS, REQUESTS = 4096, 4096, 32


async def fetch(request: int, ours: kvx.Spans, theirs: kvx.Spans) -> np.ndarray:
    """Reads 64 blocks, wherever the peer has them, into a stretch of own memory."""
    wanted = np.random.default_rng(request).permutation(BLOCKS)[:64]
    here = np.arange(64) + request * 64
    await kvx.prepare("READ", ours, theirs, here, wanted).post()
    return wanted


async def main() -> None:
    with kvx.Engine("owner") as owner, kvx.Engine("reader") as reader:
        pool = np.random.default_rng(0).integers(0, 256, (BLOCKS, BLOCK), np.uint8)
        cache = np.zeros((REQUESTS, 64, BLOCK), np.uint8)
        source = owner.register(pool, kvx.Rights.READ)
        target = reader.register(cache, kvx.Rights.NONE)
        peer = reader.add_peer(owner.metadata([source]))

        # Made once, used for every request.
        theirs = peer.spans(np.arange(BLOCKS) * BLOCK, np.full(BLOCKS, BLOCK))
        ours = reader.spans(target, np.arange(REQUESTS * 64) * BLOCK, np.full(REQUESTS * 64, BLOCK))
        requests = (fetch(request, ours, theirs) for request in range(REQUESTS))
        for request, wanted in enumerate(await asyncio.gather(*requests)):
            assert (cache[request] == pool[wanted]).all(), f"request {request} differs"
        await peer.notify(b"done with them")
        async for told in owner.notifications():
            print(f"{REQUESTS} requests are equal; {told.peer} is {told.data.decode()}")
            break


if __name__ == "__main__":
    asyncio.run(main())
