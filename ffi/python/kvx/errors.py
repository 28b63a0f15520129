"""What calls fail with: one class for each status of the library."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """What a call or an operation came to; the C interface has the same with the prefix KVX_."""

    OK = 0
    PENDING = 1
    INVALID = -1
    UNKNOWN_HANDLE = -2
    FORKED = -3
    SHUT_DOWN = -4
    DEADLINE = -5
    PEER_LOST = -6
    PEER_CLOSED = -7
    PEER_RESTARTED = -8
    PEER_RESET = -9
    PEER_REMOVED = -10
    PEER_MISBEHAVED = -11
    REFUSED = -12
    HANDSHAKE = -13
    CANCELLED = -14
    CANCELLED_UNFENCED = -15
    ABORTED = -16
    REGION_CLOSED = -17
    BUSY = -18
    UNSUPPORTED = -19
    OUT_OF_MEMORY = -20
    DELIVERY_UNKNOWN = -21
    NO_TRANSPORT = -22
    IO = -23
    PANICKED = -24
    FAILED = -25


class Error(Exception):
    """A call or an operation failed; the text names the operation, the peer and the cause."""

    status: Status = Status.FAILED


class PendingError(Error):
    """The operation is still under way."""

    status = Status.PENDING


class InvalidError(Error, ValueError):
    """Arguments that cannot be honoured."""

    status = Status.INVALID


class UnknownHandleError(Error):
    """The object was closed, released or removed before."""

    status = Status.UNKNOWN_HANDLE


class ForkedError(Error):
    """This process was forked from the one that uses the library."""

    status = Status.FORKED


class ShutDownError(Error):
    """The engine has been closed."""

    status = Status.SHUT_DOWN


class DeadlineError(Error, TimeoutError):
    """Nothing moved for the time that was allowed, or the total time was used up."""

    status = Status.DEADLINE


class PeerError(Error, ConnectionError):
    """The peer is over."""


class PeerLostError(PeerError):
    """No road to the peer came back in time."""

    status = Status.PEER_LOST


class PeerClosedError(PeerError):
    """The peer shut down."""

    status = Status.PEER_CLOSED


class PeerRestartedError(PeerError):
    """The peer was restarted: add it again to reach its new life."""

    status = Status.PEER_RESTARTED


class PeerResetError(PeerError):
    """The peer removed this engine."""

    status = Status.PEER_RESET


class PeerRemovedError(PeerError):
    """The peer was removed here."""

    status = Status.PEER_REMOVED


class PeerMisbehavedError(PeerError):
    """The peer broke the protocol."""

    status = Status.PEER_MISBEHAVED


class RefusedError(Error, PermissionError):
    """The owner of the memory refused the access."""

    status = Status.REFUSED


class HandshakeError(Error, ConnectionError):
    """The handshake failed: another auth key or version, or this engine itself."""

    status = Status.HANDSHAKE


class CancelledError(Error):
    """The transfer was cancelled, and nothing of it lands any more."""

    status = Status.CANCELLED


class UnfencedError(CancelledError):
    """Cancelled, and not confirmed by the deadline, after which nothing lands either."""

    status = Status.CANCELLED_UNFENCED


class AbortedError(Error):
    """The session was aborted."""

    status = Status.ABORTED


class RegionClosedError(Error):
    """A region that the operation uses was deregistered."""

    status = Status.REGION_CLOSED


class BusyError(Error):
    """A bound that protects memory is reached; later calls may pass."""

    status = Status.BUSY


class UnsupportedError(Error):
    """Not available here."""

    status = Status.UNSUPPORTED


class OutOfMemoryError(Error, MemoryError):
    """Memory could not be had."""

    status = Status.OUT_OF_MEMORY


class DeliveryUnknownError(Error):
    """Whether a notification was delivered cannot be known."""

    status = Status.DELIVERY_UNKNOWN


class NoTransportError(Error, ConnectionError):
    """All lanes to the peer failed, and no transport is left."""

    status = Status.NO_TRANSPORT


class IoError(Error, OSError):
    """A system call failed."""

    status = Status.IO


class PanickedError(Error):
    """A defect of the library; nothing else is known of the call's outcome."""

    status = Status.PANICKED


class FailedError(Error):
    """Something that has no status of its own; the text tells."""

    status = Status.FAILED


def _leaves(base: type[Error]) -> list[type[Error]]:
    found = [base]
    for derived in base.__subclasses__():
        found += _leaves(derived)
    return found


_CLASSES: dict[int, type[Error]] = {
    int(leaf.status): leaf for leaf in _leaves(Error) if "status" in vars(leaf)
}
_CLASSES[Status.FAILED] = FailedError


def error(status: int, message: str) -> Error:
    """The exception for a status that is not OK."""
    return _CLASSES.get(status, FailedError)(message)
