"""NIXL's exceptions, and which of them stands for what an engine fails with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kvx.errors import Error, Status


class nixlNotPostedError(Exception):
    """The transfer was not posted yet."""


class nixlInvalidParamError(Exception):
    """Arguments that cannot be honoured, handles that were released or made up among them."""


class nixlBackendError(Exception):
    """The engine could not do it."""


class nixlNotFoundError(Exception):
    """An agent, a backend or memory that is not known."""


class nixlMismatchError(Exception):
    """Bytes that are no metadata."""


class nixlNotAllowedError(Exception):
    """The owner of the memory, or the other agent, does not allow it."""


class nixlRepostActiveError(Exception):
    """The transfer is under way."""


class nixlUnknownError(Exception):
    """Something that has no class of its own; the text tells."""


class nixlNotSupportedError(Exception):
    """Not available here."""


class nixlRemoteDisconnectError(Exception):
    """The other agent is gone."""


class nixlCancelledError(Exception):
    """The transfer ended before its data was moved: it was cancelled, or its deadline came."""


class nixlNoTelemetryError(Exception):
    """Telemetry is not captured."""


# The names that NIXL's own texts begin with; callers look for them.
_CODES: dict[type[Exception], str] = {
    nixlNotPostedError: "NIXL_ERR_NOT_POSTED",
    nixlInvalidParamError: "NIXL_ERR_INVALID_PARAM",
    nixlBackendError: "NIXL_ERR_BACKEND",
    nixlNotFoundError: "NIXL_ERR_NOT_FOUND",
    nixlMismatchError: "NIXL_ERR_MISMATCH",
    nixlNotAllowedError: "NIXL_ERR_NOT_ALLOWED",
    nixlRepostActiveError: "NIXL_ERR_REPOST_ACTIVE",
    nixlUnknownError: "NIXL_ERR_UNKNOWN",
    nixlNotSupportedError: "NIXL_ERR_NOT_SUPPORTED",
    nixlRemoteDisconnectError: "NIXL_ERR_REMOTE_DISCONNECT",
    nixlCancelledError: "NIXL_ERR_CANCELED",
    nixlNoTelemetryError: "NIXL_ERR_NO_TELEMETRY",
}

# Callers tell three kinds of failed transfer apart: the other agent is gone (it has to be added
# again), this transfer alone has ended (it may be tried again), the engine failed.
_CLASSES: dict[int, type[Exception]] = {
    Status.INVALID: nixlInvalidParamError,
    Status.UNKNOWN_HANDLE: nixlInvalidParamError,
    Status.FORKED: nixlNotAllowedError,
    Status.SHUT_DOWN: nixlBackendError,
    Status.DEADLINE: nixlCancelledError,
    Status.PEER_LOST: nixlRemoteDisconnectError,
    Status.PEER_CLOSED: nixlRemoteDisconnectError,
    Status.PEER_RESTARTED: nixlRemoteDisconnectError,
    Status.PEER_RESET: nixlRemoteDisconnectError,
    Status.PEER_REMOVED: nixlRemoteDisconnectError,
    Status.PEER_MISBEHAVED: nixlRemoteDisconnectError,
    Status.REFUSED: nixlNotAllowedError,
    Status.HANDSHAKE: nixlRemoteDisconnectError,
    Status.CANCELLED: nixlCancelledError,
    Status.CANCELLED_UNFENCED: nixlCancelledError,
    Status.REGION_CLOSED: nixlNotFoundError,
    Status.BUSY: nixlBackendError,
    Status.UNSUPPORTED: nixlNotSupportedError,
    Status.OUT_OF_MEMORY: nixlBackendError,
    Status.DELIVERY_UNKNOWN: nixlRemoteDisconnectError,
    Status.NO_TRANSPORT: nixlRemoteDisconnectError,
    Status.IO: nixlBackendError,
}


def failure(kind: type[Exception], why: str) -> Exception:
    """An exception of this class, with the text that callers of NIXL look for before the reason."""
    return kind(f"{_CODES[kind]}: {why}")


def translated(error: Error, kind: type[Exception] | None = None) -> Exception:
    """NIXL's exception for an engine's: of its kind, unless another is said."""
    found = kind or _CLASSES.get(int(error.status), nixlUnknownError)
    raised = failure(found, str(error))
    raised.__cause__ = error
    return raised


@contextlib.contextmanager
def in_nixls_words() -> Iterator[None]:
    """What the engine raises inside is raised as NIXL's exception."""
    try:
        yield
    except Error as error:
        raise translated(error) from error
