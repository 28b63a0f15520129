"""Notifications: bytes that peers tell this engine's user."""

from __future__ import annotations

from typing import NamedTuple

from kvx._call import check, data, failure, ffi, lib, text
from kvx.errors import Status


class Notification(NamedTuple):
    """What a peer has told."""

    data: bytes
    #: What errors call the peer.
    peer: str
    #: The 16 bytes of its engine's id; none if that is not known.
    engine: bytes


_OK = int(Status.OK)
_PENDING = int(Status.PENDING)


def take(engine: int, nanos: int) -> Notification | None:
    """The next notification, if there is one within so many nanoseconds."""
    out = ffi.new("uint64_t *")
    status = lib.kvx_notification_take(engine, nanos, out, ffi.NULL)
    if status == _PENDING:
        return None
    if status != _OK:
        raise failure(status)
    taken = out[0]
    try:
        return Notification(
            data(lib.kvx_notification_bytes, taken),
            text(lib.kvx_notification_peer, taken),
            _engine(taken),
        )
    finally:
        lib.kvx_notification_release(taken)


def _engine(taken: int) -> bytes:
    identity = ffi.new("uint8_t[16]")
    status = lib.kvx_notification_engine(taken, ffi.cast("void *", identity))
    if status == _PENDING:
        return b""
    check(status)
    return bytes(ffi.buffer(identity))
