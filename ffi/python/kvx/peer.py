"""Peers: other engines, or this one itself, whose memory transfers go to and come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kvx._call import check, failure, ffi, handle, identity, lib, nanoseconds, text, unsigned
from kvx._handle import Handle
from kvx.directory import Entry, Rank, found
from kvx.errors import Status
from kvx.memory import Rights
from kvx.operation import Operation, begin, nothing
from kvx.session import KvPool, Receiver, SessionKey, block_column
from kvx.transfer import Spans, column, indices_of_one, pointer

if TYPE_CHECKING:
    from kvx._news import News


class RemoteRegion(NamedTuple):
    """A region of a peer, as its owner described it."""

    #: The address under which its owner knows the first byte.
    address: int
    #: Length in bytes.
    length: int
    #: What may be done with it.
    rights: Rights
    #: -1 for host memory, else the ordinal of the CUDA device.
    device: int


class Peer(Handle):
    """An engine that this one knows, in one of its lives.

    Dropping it changes nothing: the engine keeps the peer until `remove()`.
    """

    __slots__ = ("_news", "_regions")

    def __init__(self, handle: int, news: News) -> None:
        super().__init__(handle, lib.kvx_peer_release)
        self._news = news
        self._regions: list[RemoteRegion] | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return text(lib.kvx_peer_name, self._handle)

    @property
    def id(self) -> bytes | None:
        """The 16 bytes of its engine's lasting id; `None` as long as they are not proven."""
        known = identity(lib.kvx_peer_identity, self._handle)
        return known and known[0]

    @property
    def incarnation(self) -> bytes | None:
        """The 16 bytes of its engine's present life; `None` as long as they are not proven."""
        known = identity(lib.kvx_peer_identity, self._handle)
        return known and known[1]

    @property
    def connected(self) -> bool:
        """Whether a connection is up and it was heard of lately."""
        status = lib.kvx_peer_is_connected(self._handle)
        if status not in (Status.OK, Status.PENDING):
            raise failure(status)
        return bool(status == Status.OK)

    @property
    def regions(self) -> list[RemoteRegion]:
        """The regions that its metadata listed, in that order."""
        if self._regions is None:
            count = ffi.new("size_t *")
            check(lib.kvx_peer_region_count(self._handle, count))
            self._regions = [self._region(index) for index in range(int(count[0]))]
        return list(self._regions)

    def joined(self, other: Peer) -> Peer:
        """This peer with the regions of `other`, too, which is the same peer added again.

        A transfer may use any of them. Those of this one come first, then those of `other`.

        Raises:
            InvalidError: another peer, or another life of it.
        """
        return Peer(handle(lib.kvx_peer_join, self._handle, other._handle), self._news)

    def _region(self, index: int) -> RemoteRegion:
        out = ffi.new("kvx_remote_region *")
        check(lib.kvx_peer_region(self._handle, index, out))
        return RemoteRegion(int(out.address), int(out.len), Rights(out.rights), int(out.device))

    def ready(self) -> Operation[None]:
        """Ends when it is connected."""
        return begin(self._news, nothing, lib.kvx_peer_ready, self._handle)

    def published(self) -> Operation[Peer]:
        """Ends with the same peer, whose `regions` are those that its engine publishes now."""
        news = self._news
        return begin(
            news, lambda ended: connected(news, ended), lib.kvx_peer_published, self._handle
        )

    def notify(self, data: bytes) -> Operation[None]:
        """Tells its user these bytes; ends when it has them."""
        told = ffi.from_buffer("uint8_t[]", data)
        return begin(self._news, nothing, lib.kvx_peer_notify, self._handle, told, len(told))

    def spans(self, offsets: Any, lengths: Any, region: Any = None) -> Spans:
        """A list of spans in its memory: span i is `lengths[i]` bytes from `offsets[i]` on.

        Args:
            offsets: in bytes, in the region; an array or sequence of integers.
            lengths: in bytes.
            region: which of `regions` each span lies in; without, all in the first.

        Raises:
            InvalidError: columns that differ in length, or are no unsigned integers.
        """
        at = column("offsets", offsets, np.uint64)
        lens = column("lengths", lengths, np.uint64)
        of = indices_of_one(at) if region is None else column("region", region, np.uint32)
        count = Spans.same_length(region=of, offsets=at, lengths=lens)
        made = handle(
            lib.kvx_spans_remote,
            self._handle,
            pointer("uint32_t[]", of),
            pointer("uint64_t[]", at),
            pointer("uint64_t[]", lens),
            count,
        )
        return Spans(made, count, self._news)

    def spans_at(self, addresses: Any, lengths: Any) -> Spans:
        """A list of spans in its memory, by the addresses that it knows it by.

        Raises:
            InvalidError: also for a span that does not lie within one of its regions.
        """
        at = column("addresses", addresses, np.uint64)
        lens = column("lengths", lengths, np.uint64)
        count = Spans.same_length(addresses=at, lengths=lens)
        made = handle(
            lib.kvx_spans_remote_at,
            self._handle,
            pointer("uint64_t[]", at),
            pointer("uint64_t[]", lens),
            count,
        )
        return Spans(made, count, self._news)

    def receiver(
        self,
        key: SessionKey,
        pool: KvPool,
        tokens: int,
        blocks: Any,
        *,
        deadline: float | None = None,
    ) -> Receiver:
        """Opens the receiving side of a session with this peer as the sender.

        Args:
            tokens: what the blocks stand for.
            blocks: ids of blocks of `pool` that the sender may write, in the prompt's order.
            deadline: how many seconds nothing may arrive, the time until the first layer included;
                default: the engine's.
        """
        granted = block_column(blocks)
        made = handle(
            lib.kvx_receiver_open,
            self._handle,
            key.as_c(),
            pool._handle,
            unsigned("tokens", tokens, 32),
            pointer("uint32_t[]", granted),
            len(granted),
            nanoseconds("deadline", deadline),
        )
        return Receiver(made, self._news)

    def register_rank(self, rank: Rank) -> None:
        """Enters this engine into the peer's directory, as long as the two are connected."""
        with rank.as_c() as named:
            check(lib.kvx_rank_register(self._handle, named))

    def find_rank(self, rank: Rank, wait: float = 0.0) -> Operation[Entry | None]:
        """Asks its directory where `rank` is, and waits so many seconds for it to appear.

        Ends with `None` if it did not. 600 s at most.
        """
        nanos = nanoseconds("wait", wait) if wait else 0
        with rank.as_c() as named:
            return begin(self._news, found, lib.kvx_rank_find, self._handle, named, nanos)

    def remove(self) -> None:
        """Forgets it: everything outstanding with it fails with PeerRemovedError.

        Nothing of it lands any more when this returns.
        """
        with self._ending() as held:
            check(lib.kvx_peer_remove(held))

    def __repr__(self) -> str:
        return f"<kvx.Peer {self.name}>" if self._handle else "<kvx.Peer released>"


def connected(news: News, ended: int) -> Peer:
    """The peer that an operation has found."""
    return Peer(handle(lib.kvx_operation_peer, ended), news)
