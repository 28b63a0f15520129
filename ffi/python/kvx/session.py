"""Sessions: a receiver grants blocks of its pool, a sender writes them layer by layer."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kvx._call import c_text, check, data, ffi, handle, lib, unsigned
from kvx._handle import Handle
from kvx.errors import InvalidError
from kvx.memory import Region
from kvx.operation import Operation, Report, begin, nothing, report
from kvx.transfer import column, pointer

if TYPE_CHECKING:
    from kvx._news import News


class Attention(enum.IntEnum):
    """What a token's cache is."""

    #: Keys and values, a window of heads each.
    KEY_VALUE = 1
    #: One latent vector a token, the same on every tensor-parallel rank (MLA).
    LATENT = 2


class DType(enum.IntEnum):
    """What an element is."""

    #: 8-bit float, either kind.
    FP8 = 1
    BF16 = 2
    FP16 = 3
    FP32 = 4
    INT8 = 5


@dataclass(frozen=True)
class Layout:
    """How a worker rank's KV pool lies in memory.

    Byte i of head h (of this rank's window), token slot t of block b, of pool p is at
    `offset + b * block_stride + t * token_stride + h * head_stride + i`, where `(region, offset)`
    is `pools[p]` and `region` counts the regions that a `KvPool` is made with.
    """

    attention: Attention
    dtype: DType
    #: The number of layers held here.
    layers: int
    #: Tokens in a block.
    block_tokens: int
    #: Blocks in each pool.
    blocks: int
    #: Elements of one head's K (or V) of one token; of the latent vector.
    head_size: int
    #: Bytes from one block to the next within a pool.
    block_stride: int
    #: Bytes from one token slot to the next within a block.
    token_stride: int
    #: Bytes from one head to the next.
    head_stride: int
    #: Region and offset of block 0 of each pool, in layer order: for keys and values two a layer
    #: (K, then V), for latent one.
    pools: Sequence[tuple[int, int]]
    #: The first layer held here, counted in the whole model.
    first_layer: int = 0
    #: The first KV head held here; 0 for latent.
    heads_first: int = 0
    #: The number of heads held here; 1 for latent.
    heads_count: int = 1
    #: The KV heads of the whole model; 1 for latent.
    heads_total: int = 1


# Those that are numbers, and of how many bits.
_LAYOUT_FIELDS = {
    "attention": 32,
    "dtype": 32,
    "first_layer": 32,
    "layers": 32,
    "block_tokens": 32,
    "blocks": 32,
    "heads_first": 32,
    "heads_count": 32,
    "heads_total": 32,
    "head_size": 32,
    "block_stride": 64,
    "token_stride": 64,
    "head_stride": 64,
}


class SessionKey(NamedTuple):
    """Which session of which request."""

    #: The request.
    room: int
    #: Counts retries of the same room.
    attempt: int = 0
    #: Rank of the sender in its instance.
    sender_rank: int = 0
    #: Rank of the receiver in its instance.
    receiver_rank: int = 0

    def as_c(self) -> Any:
        """As the library takes it."""
        return ffi.new(
            "kvx_session_key *",
            {
                "room": unsigned("room", self.room, 64),
                "attempt": unsigned("attempt", self.attempt, 32),
                "sender_rank": unsigned("sender_rank", self.sender_rank, 32),
                "receiver_rank": unsigned("receiver_rank", self.receiver_rank, 32),
            },
        )


class KvPool(Handle):
    """The KV pool of a worker rank. Made once, used for every session.

    Raises:
        InvalidError: a layout that makes no sense, or does not lie in the regions.
    """

    __slots__ = ()

    def __init__(self, layout: Layout, regions: Sequence[Region]) -> None:
        described = ffi.new("kvx_layout *")
        described.size = ffi.sizeof("kvx_layout")
        for field, bits in _LAYOUT_FIELDS.items():
            setattr(described, field, unsigned(field, int(getattr(layout, field)), bits))
        pools = [
            (unsigned("pools", region, 32), unsigned("pools", offset, 64))
            for region, offset in layout.pools
        ]
        of = ffi.new("uint32_t[]", [region for region, _ in pools])
        at = ffi.new("uint64_t[]", [offset for _, offset in pools])
        described.pool_regions, described.pool_offsets = of, at
        described.pool_count = len(pools)
        known = ffi.new("uint64_t[]", [region._handle for region in regions])
        made = handle(lib.kvx_pool_create, described, known, len(regions))
        super().__init__(made, lib.kvx_pool_release)


class Granted(NamedTuple):
    """What a receiver has granted."""

    #: The receiver's tokens; those are sent.
    tokens: int
    #: The layers that both sides hold, counted in the whole model.
    layers: range


class Sender(Handle):
    """The prefill side of one session. Dropping it aborts the session, unless it is finished."""

    __slots__ = ("_news",)

    def __init__(self, handle: int, news: News) -> None:
        super().__init__(handle, _abandon_sender)
        self._news = news

    def granted(self) -> Operation[Granted]:
        """Ends when the receiver has granted its blocks."""
        return begin(self._news, _granted, lib.kvx_sender_granted, self._handle)

    def write(self, layers: range, blocks: Any) -> Operation[Report]:
        """Writes layers of the prompt, which lies in `blocks` of the sender's pool.

        To be called for each group of layers as prefill finishes them, in any order, each layer
        once. Layers are counted in the whole model.
        """
        ids = block_column(blocks)
        if layers.step != 1:
            raise InvalidError("layers: not one after another")
        return begin(
            self._news,
            report,
            lib.kvx_sender_write,
            self._handle,
            unsigned("layers", layers.start, 32),
            unsigned("layers", max(0, layers.stop - layers.start), 32),
            pointer("uint32_t[]", ids),
            len(ids),
        )

    def finish(self, payload: bytes = b"") -> Operation[Report]:
        """Says that all layers were written, with what decode needs besides (at most 256 KiB).

        Ends when everything is in the receiver's memory and it knows. The sender is then over.
        """
        last = ffi.from_buffer("uint8_t[]", payload)
        with self._ending() as held:
            return begin(self._news, report, lib.kvx_sender_finish, held, last, len(last))

    def abort(self, reason: str | None = None) -> None:
        """Gives the session up; the receiver is told why."""
        told = _reason(reason)
        with self._ending() as held:
            check(lib.kvx_sender_abort(held, told))


class Receiver(Handle):
    """The decode side of one session. Dropping it ends it as `close()` does."""

    __slots__ = ("_news",)

    def __init__(self, handle: int, news: News) -> None:
        super().__init__(handle, _abandon_receiver)
        self._news = news

    def layer(self, layer: int) -> Operation[None]:
        """Ends when this layer (counted in the whole model) has arrived."""
        number = unsigned("layer", layer, 32)
        return begin(self._news, nothing, lib.kvx_receiver_layer, self._handle, number)

    @property
    def arrived(self) -> int:
        """The number of layers that have arrived."""
        out = ffi.new("uint32_t *")
        check(lib.kvx_receiver_arrived(self._handle, out))
        return int(out[0])

    def done(self) -> Operation[bytes]:
        """Ends when everything has arrived, with what the sender finished with."""
        return begin(self._news, _payload, lib.kvx_receiver_done, self._handle)

    def close(self, reason: str | None = None) -> None:
        """Ends the receiving side: aborts the session unless it is complete.

        When this returns, nothing lands in the granted blocks any more.
        """
        told = _reason(reason)
        with self._ending() as held:
            check(lib.kvx_receiver_close(held, told))


def block_column(blocks: Any) -> np.ndarray[Any, Any]:
    """Block ids as the library takes them."""
    return column("blocks", blocks, np.uint32)


def _abandon_sender(held: int) -> int:
    return int(lib.kvx_sender_abort(held, ffi.NULL))


def _abandon_receiver(held: int) -> int:
    return int(lib.kvx_receiver_close(held, ffi.NULL))


def _reason(reason: str | None) -> Any:
    return ffi.NULL if reason is None else c_text("reason", reason)


def _granted(ended: int) -> Granted:
    out = ffi.new("kvx_granted *")
    check(lib.kvx_operation_granted(ended, out))
    return Granted(int(out.tokens), range(out.first_layer, out.first_layer + out.layers))


def _payload(ended: int) -> bytes:
    return data(lib.kvx_operation_payload, ended)
