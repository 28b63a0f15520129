"""The engine: registers memory, knows peers, opens sessions."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import numpy as np

from kvx import _call
from kvx._call import (
    c_text,
    check,
    data,
    ffi,
    handle,
    identity,
    lib,
    nanoseconds,
    slices,
    text,
    unsigned,
)
from kvx._news import News
from kvx.directory import Rank
from kvx.errors import ForkedError, InvalidError
from kvx.memory import Memory, Region, Rights, memory_of
from kvx.notification import Notification, take
from kvx.operation import Operation, begin
from kvx.peer import Peer, connected
from kvx.session import KvPool, Sender, SessionKey
from kvx.transfer import Spans, column, indices_of_one, pointer


class Engine:
    """One engine of this process: it listens on a port and has threads of its own.

    What is not given here is taken from the environment (`KVX_` and the argument's name in upper
    case), else the default. An engine is closed by `close()`, at the end of a `with` block, when it
    is garbage, or when the interpreter exits.

    Args:
        name: the engine's lasting name, from which its id is made. Default: one that is made up.
        bind: where to listen, "ip" or "ip:port". Default: any free port on loopback.
        advertise: what peers are told to reach it at, best first: a comma-separated list of "ip",
            "ip:port" or interface names. Default: what the bound address suggests.
        transports: which transports may be used, best first: a comma-separated list of "shm"
            (memory of a process on the same host) and "tcp". Default: "shm,tcp".
        auth_key_file: a file of mode 0600 with the key that all engines of a deployment share;
            required off loopback, unless `metadata_auth` or `insecure` is said.
        metadata_auth: whoever holds metadata of this engine may connect, and nobody else but who
            holds the key in `auth_key_file`, if that is given. False: not so, also where the
            environment says it.
        insecure: anybody may connect who reaches the port.
        deadline: an operation that has not moved for so many seconds fails. Default: 10.
        total_deadline: one that is not done after so many seconds fails too. Default: none.
        peer_memory: bytes kept for a peer at most. Default: 256 MiB.
        notification_window: bytes of notifications that a peer may send before they are taken.
            Default: 32 MiB.
        lanes: bulk connections to a peer. Default: what the transport likes best.
        io_threads: threads that move bytes. Default: the smaller of 4 and the cores.
        log: what is logged to standard error, such as "kvx=info", the default.
        environment: whether the environment is asked.

    Raises:
        InvalidError: an option that cannot be honoured.
        Error: the port cannot be had, or the threads.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        bind: str | None = None,
        advertise: str | None = None,
        transports: str | None = None,
        auth_key_file: str | None = None,
        metadata_auth: bool | None = None,
        insecure: bool = False,
        deadline: float | None = None,
        total_deadline: float | None = None,
        peer_memory: int | None = None,
        notification_window: int | None = None,
        lanes: int | None = None,
        io_threads: int | None = None,
        log: str | None = None,
        environment: bool = True,
    ) -> None:
        options = ffi.new("kvx_engine_options *")
        options.size = ffi.sizeof("kvx_engine_options")
        texts = {
            "name": name,
            "bind": bind,
            "advertise": advertise,
            "transports": transports,
            "auth_key_file": auth_key_file,
            "log": log,
        }
        kept = []
        for option, value in texts.items():
            if value is not None:
                kept.append(c_text(option, value))
                setattr(options, option, kept[-1])
        options.deadline_ns = nanoseconds("deadline", deadline)
        options.total_deadline_ns = nanoseconds("total_deadline", total_deadline)
        numbers = {
            "peer_memory": (peer_memory, 64),
            "notification_window": (notification_window, 64),
            "lanes": (lanes, 16),
            "io_threads": (io_threads, 16),
        }
        for option, (number, bits) in numbers.items():
            if number is not None:
                if not 0 < number < 1 << bits:
                    raise InvalidError(f"{option}: {number} is not from 1 to 2^{bits} - 1")
                setattr(options, option, number)
        if metadata_auth is not None:
            options.metadata_auth = 1 if metadata_auth else 2
        options.insecure = bool(insecure)
        options.ignore_environment = not environment
        self._handle = handle(lib.kvx_engine_open, options)
        _call.opened()
        self._memory: dict[int, Memory] = {}
        # The memory stays until nothing lands in it any more.
        self._closing = weakref.finalize(self, _close, self._handle, self._memory)
        self._news = News(self._handle)
        word = ffi.new("size_t **")
        check(lib.kvx_notification_count_word(self._handle, word))
        self._waiting = word[0]

    @property
    def id(self) -> bytes:
        """The 16 bytes of its lasting id, made from its name."""
        return self._identity()[0]

    @property
    def incarnation(self) -> bytes:
        """The 16 bytes of its present life."""
        return self._identity()[1]

    def _identity(self) -> tuple[bytes, bytes]:
        known = identity(lib.kvx_engine_identity, self._handle)
        return known or (b"", b"")

    @property
    def address(self) -> str:
        """Where it listens, "ip:port"."""
        return text(lib.kvx_engine_address, self._handle)

    def close(self) -> None:
        """Ends it: peers are told, and everything outstanding fails with ShutDownError.

        When this returns no byte lands in its memory any more. Takes half a second at most; once
        more does nothing.
        """
        self._closing()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def allocate(self, length: int, rights: Rights = Rights.ALL) -> Region:
        """Allocates zeroed, page-aligned memory and registers it; `Region.buffer` has the bytes.

        Raises:
            OutOfMemoryError: there is not so much.
        """
        address = ffi.new("void **")
        allocated = handle(lib.kvx_buffer_allocate, unsigned("length", length, 64), address)
        release = lib.kvx_buffer_release
        # Freed when neither a view of it nor a region is left.
        buffer = ffi.gc(ffi.cast("uint8_t *", address[0]), lambda _: release(allocated))
        made = handle(lib.kvx_buffer_register, self._handle, allocated, int(rights))
        place = int(ffi.cast("uintptr_t", buffer))
        return self._registered(made, Memory(place, length, buffer), rights, buffer)

    def register(self, memory: Any, rights: Rights = Rights.ALL) -> Region:
        """Registers the memory of an object that has `__array_interface__`, a buffer, or DLPack.

        Raises:
            InvalidError: it has none, cannot be written to, or its bytes are not in one piece.
            UnsupportedError: it is the memory of a device.
        """
        found = memory_of(memory)
        return self._register(found, rights)

    def register_address(self, address: int, length: int, rights: Rights = Rights.ALL) -> Region:
        """Registers memory of which only the address is known.

        Until `Region.deregister()` or `close()` has returned, the engine and, as far as `rights`
        go, its peers may read and write it at any moment. It may be unmapped early (transfers then
        fail), but nothing else may be mapped there.
        """
        return self._register(Memory(address, length, None), rights)

    def _register(self, memory: Memory, rights: Rights) -> Region:
        if not 0 < memory.address < 1 << 64:
            raise InvalidError(f"memory: {memory.address:#x} is no address")
        place = ffi.cast("void *", memory.address)
        length = unsigned("length", memory.length, 64)
        made = handle(lib.kvx_register, self._handle, place, length, int(rights))
        return self._registered(made, memory, rights, None)

    def _registered(self, made: int, memory: Memory, rights: Rights, buffer: Any) -> Region:
        self._memory[made] = memory
        return Region(self, made, memory, Rights(rights), buffer)

    def _forget(self, region: int) -> None:
        self._memory.pop(region, None)

    def metadata(self, regions: Iterable[Region]) -> bytes:
        """What others need to reach these regions, for `add_peer()` there.

        Whoever holds it may use the regions, within their rights, if it may connect at all: keep it
        secret.
        """
        known = [region._handle for region in regions]
        column = ffi.new("uint64_t[]", known)
        return data(lib.kvx_engine_metadata, self._handle, column, len(known))

    def add_peer(self, metadata: bytes) -> Peer:
        """Adds a peer from its metadata, or more regions of one added before.

        It begins to connect; transfers may be posted at once.

        Raises:
            InvalidError: bytes that are no metadata.
            HandshakeError: this engine's own.
            PeerRestartedError: of a life that is over while another is connected.
        """
        blob = ffi.from_buffer("uint8_t[]", metadata)
        return Peer(handle(lib.kvx_peer_add, self._handle, blob, len(blob)), self._news)

    def connect(self, address: str) -> Operation[Peer]:
        """Connects to the engine at "host:port", whoever it is; ends with the peer."""
        news = self._news
        there = c_text("address", address)
        return begin(
            news, lambda ended: connected(news, ended), lib.kvx_peer_connect, self._handle, there
        )

    def myself(self) -> Peer:
        """This engine as a peer of its own, with the regions that it has now."""
        return Peer(handle(lib.kvx_peer_myself, self._handle), self._news)

    def spans(
        self,
        regions: Region | Sequence[Region],
        offsets: Any,
        lengths: Any,
        region: Any = None,
    ) -> Spans:
        """A list of spans in own memory: span i is `lengths[i]` bytes from `offsets[i]` on.

        Args:
            regions: one, or several.
            offsets: in bytes, in the region; an array or sequence of integers.
            lengths: in bytes.
            region: which of `regions` each span lies in; without, all in the first.
        """
        known = _handles([regions] if isinstance(regions, Region) else regions)
        at = column("offsets", offsets, np.uint64)
        lens = column("lengths", lengths, np.uint64)
        of = indices_of_one(at) if region is None else column("region", region, np.uint32)
        count = Spans.same_length(region=of, offsets=at, lengths=lens)
        made = handle(
            lib.kvx_spans_local,
            known,
            len(known),
            pointer("uint32_t[]", of),
            pointer("uint64_t[]", at),
            pointer("uint64_t[]", lens),
            count,
        )
        return Spans(made, count, self._news)

    def spans_at(self, regions: Sequence[Region], addresses: Any, lengths: Any) -> Spans:
        """A list of spans in own memory, by address, each within one of the regions.

        Raises:
            InvalidError: also for a span that lies in none of them.
        """
        known = _handles(regions)
        at = column("addresses", addresses, np.uint64)
        lens = column("lengths", lengths, np.uint64)
        count = Spans.same_length(addresses=at, lengths=lens)
        made = handle(
            lib.kvx_spans_local_at,
            known,
            len(known),
            pointer("uint64_t[]", at),
            pointer("uint64_t[]", lens),
            count,
        )
        return Spans(made, count, self._news)

    @property
    def waiting_notifications(self) -> int:
        """How many notifications have come and were not taken. Costs no call of the library.

        Raises:
            ForkedError: in a forked child, where none come.
        """
        if _call.forked:
            raise ForkedError("this process was forked from the one that uses kvx")
        return int(self._waiting[0])

    def poll_notification(self) -> Notification | None:
        """The next notification, if there is one; no system call if there is none."""
        return take(self._handle, 0)

    def wait_notification(self, seconds: float | None = None) -> Notification | None:
        """The next notification, if one comes within so many seconds; without, waits for it.

        Raises:
            UnknownHandleError: the engine was closed.
            InvalidError: `seconds` is no time.
        """
        for nanos in slices("seconds", seconds):
            notification = take(self._handle, nanos)
            if notification is not None:
                return notification
        return None

    async def notifications(self) -> AsyncIterator[Notification]:
        """All notifications, as they come.

        Raises:
            UnknownHandleError: the engine was closed.
        """
        while True:
            notification = self.poll_notification()
            if notification is None:
                await self._news.heard()
            else:
                yield notification

    def sender(self, key: SessionKey, pool: KvPool, *, deadline: float | None = None) -> Sender:
        """Opens the sending side of a session; the receiver may have come before.

        Args:
            deadline: how many seconds to wait for it, and for progress of each write; default: the
                engine's.
        """
        made = handle(
            lib.kvx_sender_open,
            self._handle,
            key.as_c(),
            pool._handle,
            nanoseconds("deadline", deadline),
        )
        return Sender(made, self._news)

    def serve_rank(self, rank: Rank) -> None:
        """Enters this engine into its own directory."""
        with rank.as_c() as named:
            check(lib.kvx_rank_serve(self._handle, named))

    def __repr__(self) -> str:
        return f"<kvx.Engine {self.address}>" if self._closing.alive else "<kvx.Engine closed>"


def _close(engine: int, memory: dict[int, Memory]) -> None:
    # In a forked child the engine is the parent's, and this does nothing.
    lib.kvx_engine_close(engine)
    memory.clear()


def _handles(regions: Iterable[Region]) -> Any:
    return ffi.new("uint64_t[]", [region._handle for region in regions])
