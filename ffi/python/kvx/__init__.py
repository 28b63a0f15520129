"""kvx moves the KV cache of a language model from prefill to decode workers.

An `Engine` registers memory and knows peers. Above it stand two ways to move bytes:

- one-sided transfers: WRITE and READ of lists of spans between registered regions, with
  notifications (`Engine.spans`, `Peer.spans`, `prepare`, `Prepared.post`);
- sessions: a receiver grants blocks of its pool, a sender writes them layer by layer, for each
  request (`Engine.sender`, `Peer.receiver`).

What takes time is an `Operation`: `await` it, `wait()` for it, or look at it. Every one ends by its
deadline. Calls into the library let other Python threads run meanwhile.
"""

from kvx._call import version as _version
from kvx.directory import Entry, Rank
from kvx.engine import Engine
from kvx.errors import (
    AbortedError,
    BusyError,
    CancelledError,
    DeadlineError,
    DeliveryUnknownError,
    Error,
    FailedError,
    ForkedError,
    HandshakeError,
    InvalidError,
    IoError,
    NoTransportError,
    OutOfMemoryError,
    PanickedError,
    PeerClosedError,
    PeerError,
    PeerLostError,
    PeerMisbehavedError,
    PeerRemovedError,
    PeerResetError,
    PeerRestartedError,
    PendingError,
    RefusedError,
    RegionClosedError,
    ShutDownError,
    Status,
    UnfencedError,
    UnknownHandleError,
    UnsupportedError,
)
from kvx.memory import Region, Rights
from kvx.notification import Notification
from kvx.operation import Operation, Report, Transfer
from kvx.peer import Peer, RemoteRegion
from kvx.session import Attention, DType, Granted, KvPool, Layout, Receiver, Sender, SessionKey
from kvx.transfer import Op, Prepared, Spans, prepare

#: The version of the package and of its library.
__version__ = _version()

__all__ = [
    "AbortedError",
    "Attention",
    "BusyError",
    "CancelledError",
    "DType",
    "DeadlineError",
    "DeliveryUnknownError",
    "Engine",
    "Entry",
    "Error",
    "FailedError",
    "ForkedError",
    "Granted",
    "HandshakeError",
    "InvalidError",
    "IoError",
    "KvPool",
    "Layout",
    "NoTransportError",
    "Notification",
    "Op",
    "Operation",
    "OutOfMemoryError",
    "PanickedError",
    "Peer",
    "PeerClosedError",
    "PeerError",
    "PeerLostError",
    "PeerMisbehavedError",
    "PeerRemovedError",
    "PeerResetError",
    "PeerRestartedError",
    "PendingError",
    "Prepared",
    "Rank",
    "Receiver",
    "RefusedError",
    "Region",
    "RegionClosedError",
    "RemoteRegion",
    "Report",
    "Rights",
    "Sender",
    "SessionKey",
    "ShutDownError",
    "Spans",
    "Status",
    "Transfer",
    "UnfencedError",
    "UnknownHandleError",
    "UnsupportedError",
    "prepare",
]
