"""Transfers that were made: posted any number of times, looked at, released."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Callable, NoReturn

from kvx import Prepared, Transfer
from kvx.dropin.nixl.errors import (
    failure,
    nixlInvalidParamError,
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

_NOT_POSTED = failure(nixlNotPostedError, "the transfer was not posted")

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
        # Held while it is posted, and while it is given up.
        self._lock = threading.Lock()
        # Whether its release was begun: then it is not posted any more.
        self._given_up = False
        #: Its last post.
        self.last = Post(remote, failed, _NOT_POSTED)

    def post(self, notification: bytes | None) -> nixl_status_t:
        """Posts it; a notification stays for later posts.

        Raises:
            nixlRepostActiveError: it is under way.
        """
        with self._lock:
            before, post = self.last, Post(self._remote, self._failed)
            if before.under_way:
                raise failure(nixlRepostActiveError, "the transfer is under way")
            if self._given_up:
                raise failure(nixlInvalidParamError, "the transfer was released")
            # Nobody may have seen it end.
            before.leave()
            if self._remote is not None:
                self._remote.enter(post, self)
            if notification is not None:
                self._notification = notification
            self.last = post
            try:
                post.begin(self._begin)
            except BaseException:
                if post.under_way:
                    # Such as KeyboardInterrupt, which is nothing that a transfer ends with.
                    self.last = before
                    post.leave()
                raise
            if self._given_up:
                post.cancel()
        return post.status()

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

    def telemetry(self) -> nixlXferTelemetry:
        """What the last post took.

        Raises:
            nixlNotPostedError: it was not posted.
        """
        post = self.last
        post.status()
        size = self._prepared.size
        runs = size.runs if self._descriptors is None else self._descriptors
        return post.telemetry(size.bytes, runs)

    def cost(self) -> int:
        """Microseconds that it should take, by the rate of the last large transfer; 0: none."""
        rate = self._remote.rate if self._remote is not None else 0.0
        return round(self._prepared.size.bytes / rate) if rate else 0

    def release(self) -> None:
        """Gives it up; nothing of it lands when this returns.

        Raises:
            nixlRepostActiveError: the other side has not confirmed yet, or another thread is still
                posting it. It is given up all the same, and to be released again later.
        """
        self._given_up = True
        if not self.ends_by(time.monotonic() + _RELEASE_S):
            raise failure(
                nixlRepostActiveError, "the other agent has not confirmed that nothing lands"
            )
        self._prepared.release()

    def ends_by(self, until: float) -> bool:
        """Gives its last post up, also one that is about to begin, and waits that long for it to
        end; whether it has."""
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            return False
        try:
            return self.last.ends_by(until)
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """Gives it up without waiting: nobody holds its handle any more."""
        self.last.cancel()
        self.last.leave()


class Post:
    """One post of a request. The next is another: who still looks at this one changes nothing of
    that."""

    __slots__ = ("_began", "_ended", "_error", "_failed", "_posted", "_remote", "transfer")

    def __init__(
        self, remote: Remote | None, failed: Failed, error: Exception | None = None
    ) -> None:
        # `None`: a transfer to oneself.
        self._remote = remote
        self._failed = failed
        #: `None` until it has begun, and if it could not.
        self.transfer: Transfer | None = None
        # What it failed with, as it is raised.
        self._error = error
        # Times in nanoseconds; `_ended` is 0 until it was seen to have ended well.
        self._began = time.monotonic_ns()
        self._posted = self._ended = 0

    def begin(self, begin: Callable[[], Transfer]) -> None:
        """Begins it; raises what it fails with."""
        try:
            self.transfer = begin()
        except Error as error:
            self._fail(error)
        self._posted = time.monotonic_ns()

    @property
    def under_way(self) -> bool:
        """Whether it may still move something."""
        if self.transfer is None:
            return self._error is None
        return not self.transfer.done

    def status(self) -> nixl_status_t:
        """Whether it is done.

        Raises:
            nixlNotPostedError: there was none.
            Exception: what it failed with, each time.
        """
        if self._ended:
            return _SUCCESS
        if self._error is not None:
            raise type(self._error)(*self._error.args) from self._error.__cause__
        transfer = self.transfer
        if transfer is None or not transfer.done:
            return _UNDER_WAY
        return self._end(transfer)

    def _end(self, transfer: Transfer) -> nixl_status_t:
        try:
            report = transfer.result()
        except Error as error:
            self._fail(error)
        self._ended = time.monotonic_ns()
        self.leave()
        if self._remote is not None and report.bytes >= _LARGE:
            self._remote.rate = report.bytes / self._microseconds()
        return _SUCCESS

    def _fail(self, error: Error) -> NoReturn:
        self.leave()
        if self._remote is None:
            self._error = translated(error)
        else:
            self._error = self._failed(self._remote, error)
        raise self._error

    def telemetry(self, size: int, runs: int) -> nixlXferTelemetry:
        """What it took, to move so many bytes in so many runs."""
        posted = max(1, (self._posted - self._began) // 1000)
        transferred = max(posted, self._microseconds())
        return measured(self._began // 1000, posted, transferred, size, runs)

    def _microseconds(self) -> int:
        return max(1, ((self._ended or time.monotonic_ns()) - self._began) // 1000)

    def cancel(self) -> None:
        """Gives it up, without waiting."""
        # The engine may be closed, as the interpreter ends.
        with contextlib.suppress(Error):
            if self.transfer is not None and not self.transfer.done:
                self.transfer.cancel()

    def ends_by(self, until: float) -> bool:
        """Gives it up, and waits that long for it to end; whether it has."""
        self.cancel()
        try:
            if self.transfer is not None:
                self.transfer.wait(max(0.0, until - time.monotonic()))
        except PendingError:
            return False
        except Error:
            # It has ended, in whichever way.
            pass
        self.leave()
        return True

    def leave(self) -> None:
        """Makes it none of those that its agent's removal ends."""
        if self._remote is not None:
            self._remote.leave(self)


def no_telemetry() -> Exception:
    """What asking for telemetry raises where none is captured."""
    return failure(
        nixlNoTelemetryError, "set capture_telemetry, or NIXL_TELEMETRY_ENABLE=yes, for it"
    )
