"""Transfers that were made: posted any number of times, looked at, released."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Callable, NoReturn

from kvx import Prepared, Transfer
from kvx.dropin.nixl.errors import (
    failure,
    nixlNoTelemetryError,
    nixlNotPostedError,
    nixlRepostActiveError,
    translated,
)
from kvx.dropin.nixl.names import nixl_status_t
from kvx.dropin.nixl.remotes import Remote
from kvx.dropin.nixl.telemetry import measured, nixlXferTelemetry
from kvx.errors import BusyError, Error, PendingError

_SUCCESS, _UNDER_WAY = nixl_status_t.NIXL_SUCCESS, nixl_status_t.NIXL_IN_PROG

# How long a release waits for the other side to confirm that nothing lands any more. Who releases
# is often the thread that everything else waits for.
_RELEASE_S = 1.0
# Transfers below say nothing of a rate.
_LARGE = 1 << 20

#: What a failed transfer raises.
Failed = Callable[[Remote, Error], Exception]


class Request:
    """A prepared transfer, and what its last post came to."""

    def __init__(
        self,
        prepared: Prepared,
        remote: Remote | None,
        notification: bytes | None,
        descriptors: int | None,
        failed: Failed,
    ) -> None:
        self._prepared = prepared
        # `None`: a transfer to oneself.
        self._remote = remote
        # What the other agent is told, with its heading.
        self._notification = notification
        # What telemetry tells instead of the number after merging.
        self._descriptors = descriptors
        self._failed = failed
        # Held while it is posted or released.
        self._lock = threading.Lock()
        self._transfer: Transfer | None = None
        # What the last post failed with, as it is raised.
        self._error: Exception | None = None
        # Times of the last post, in nanoseconds; `_ended` is 0 until it was seen to have ended.
        self._began = self._posted = self._ended = 0

    def post(self, notification: bytes | None) -> nixl_status_t:
        """Posts it; a notification stays for later posts.

        Raises:
            nixlRepostActiveError: it is under way.
        """
        with self._lock:
            if self._transfer is not None and not self._transfer.done:
                raise failure(nixlRepostActiveError, "the transfer is under way")
            if self._remote is not None:
                self._remote.check()
                self._remote.active.add(self)
            if notification is not None:
                self._notification = notification
            self._began = time.monotonic_ns()
            self._transfer, self._error, self._ended = None, None, 0
            try:
                self._transfer = self._begin()
            except Error as error:
                self._fail(error)
            self._posted = time.monotonic_ns()
        return self.status()

    def _begin(self) -> Transfer:
        try:
            return self._prepared.post(self._notification)
        except BusyError:
            # Few bytes of notifications may be out to an agent that has not said yet how many it
            # takes.
            if self._remote is None or self._remote.peer.connected:
                raise
            self._remote.peer.ready().wait()
            return self._prepared.post(self._notification)

    def status(self) -> nixl_status_t:
        """Whether it is done.

        Raises:
            nixlNotPostedError: it was not posted.
            Exception: what it failed with, each time.
        """
        if self._ended:
            return _SUCCESS
        if self._error is not None:
            raise type(self._error)(*self._error.args) from self._error.__cause__
        transfer = self._transfer
        if transfer is None:
            raise failure(nixlNotPostedError, "the transfer was not posted")
        if not transfer.done:
            return _UNDER_WAY
        return self._end(transfer)

    def _end(self, transfer: Transfer) -> nixl_status_t:
        try:
            report = transfer.result()
        except Error as error:
            self._fail(error)
        self._ended = time.monotonic_ns()
        if self._remote is not None:
            self._remote.active.discard(self)
            if report.bytes >= _LARGE:
                self._remote.rate = report.bytes / self._microseconds()
        return _SUCCESS

    def _fail(self, error: Error) -> NoReturn:
        if self._remote is None:
            self._error = translated(error)
        else:
            self._remote.active.discard(self)
            self._error = self._failed(self._remote, error)
        raise self._error

    def telemetry(self) -> nixlXferTelemetry:
        """What the last post took.

        Raises:
            nixlNotPostedError: it was not posted.
        """
        self.status()
        size = self._prepared.size
        runs = size.runs if self._descriptors is None else self._descriptors
        posted = max(1, (self._posted - self._began) // 1000)
        transferred = max(posted, self._microseconds())
        return measured(self._began // 1000, posted, transferred, size.bytes, runs)

    def _microseconds(self) -> int:
        return max(1, ((self._ended or time.monotonic_ns()) - self._began) // 1000)

    def cost(self) -> int:
        """Microseconds that it should take, by the rate of the last large transfer; 0: none."""
        rate = self._remote.rate if self._remote is not None else 0.0
        return round(self._prepared.size.bytes / rate) if rate else 0

    def release(self) -> None:
        """Gives it up; nothing of it lands when this returns.

        Raises:
            nixlRepostActiveError: the other side has not confirmed yet. It is given up all the
                same, and to be released again later.
        """
        if not self.ends_by(time.monotonic() + _RELEASE_S):
            raise failure(
                nixlRepostActiveError, "the other agent has not confirmed that nothing lands"
            )
        with self._lock:
            self._prepared.release()

    def ends_by(self, until: float) -> bool:
        """Gives it up, and waits that long for it to end; whether it has."""
        transfer = self._transfer
        if transfer is not None and not transfer.done:
            try:
                transfer.cancel()
                transfer.wait(max(0.0, until - time.monotonic()))
            except PendingError:
                return False
            except Error:
                # It has ended, in whichever way.
                pass
        if self._remote is not None:
            self._remote.active.discard(self)
        return True

    def abandon(self) -> None:
        """Gives it up without waiting: nobody holds its handle any more."""
        transfer = self._transfer
        # The engine may be closed, as the interpreter ends.
        with contextlib.suppress(Error):
            if transfer is not None and not transfer.done:
                transfer.cancel()
        if self._remote is not None:
            self._remote.active.discard(self)


def no_telemetry() -> Exception:
    """What asking for telemetry raises where none is captured."""
    return failure(
        nixlNoTelemetryError, "set capture_telemetry, or NIXL_TELEMETRY_ENABLE=yes, for it"
    )
