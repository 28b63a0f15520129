"""Operations: what takes time. They are looked at, waited for, or awaited."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Callable, Generic, NamedTuple, TypeVar

from kvx import _call
from kvx._call import check, ffi, handle, lib, slices
from kvx.errors import PendingError, Status, UnknownHandleError

if TYPE_CHECKING:
    from kvx._news import News

T = TypeVar("T")

_PENDING = int(Status.PENDING)
_FORKED = int(Status.FORKED)


class Report(NamedTuple):
    """What a transfer that is done has moved."""

    bytes: int
    #: Runs that they moved in, after merging.
    runs: int


class Operation(Generic[T]):
    """Something that ends later, by its deadline at the latest.

    `await` it, `wait()` for it on a thread, or look at `done`, which costs no call of the library.
    Dropping it lets it go on unseen.
    """

    __slots__ = ("__weakref__", "_handle", "_news", "_result", "_word")

    def __init__(self, started: int, news: News, result: Callable[[int], T]) -> None:
        self._handle = started
        self._news = news
        self._result = result
        place = ffi.new("int32_t **")
        check(lib.kvx_operation_status_word(started, place))
        release = lib.kvx_operation_release
        # The word stands until the handle is released, and whoever looks at it holds it.
        self._word: Any = ffi.gc(place[0], lambda _: release(started))

    @property
    def status(self) -> Status:
        """PENDING while it is under way, then what it came to. FORKED in a forked child.

        Raises:
            UnknownHandleError: it was released.
        """
        return Status(self._look())

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not.

        Raises:
            UnknownHandleError: it was released.
        """
        return self._look() != _PENDING

    def result(self) -> T:
        """What came of it.

        Raises:
            PendingError: it is under way.
            Error: it failed; which one, and why, the exception tells.
        """
        if self._look() == _PENDING:
            raise PendingError("the operation is under way")
        check(lib.kvx_operation_poll(self._handle))
        return self._result(self._handle)

    def wait(self, seconds: float | None = None) -> T:
        """Waits until it has ended, for `seconds` at most; without, until its deadline.

        Raises:
            PendingError: it has not ended in that time, and goes on.
            InvalidError: `seconds` is no time.
            Error: it failed.
        """
        if self._look() == _PENDING:
            for nanos in slices("seconds", seconds):
                status = lib.kvx_operation_wait(self._handle, nanos)
                if status != _PENDING:
                    check(status)
                    break
            else:
                raise PendingError(f"the operation has not ended within {seconds} s")
        return self.result()

    def cancel(self) -> None:
        """Gives a transfer up, which then ends as CANCELLED once nothing of it lands any more.

        It may also end well, if it was done before. Wait for it to know.

        Raises:
            UnsupportedError: it is no transfer.
        """
        check(lib.kvx_operation_cancel(self._handle))

    def release(self) -> None:
        """Lets go of it; it goes on. Who awaits it gets UnknownHandleError."""
        self._handle = 0
        self._word = None
        self._news.tell()

    def __await__(self) -> Generator[Any, None, T]:
        if self._look() == _PENDING:
            yield from self._news.ended(self).__await__()
        return self.result()

    def __repr__(self) -> str:
        state = "released" if self._word is None else self.status.name
        return f"<kvx.{type(self).__name__} {state}>"

    def _is_over(self) -> bool:
        """Whether there is nothing to wait for: it has ended, or was released."""
        word = self._word
        return word is None or _call.forked or word[0] != _PENDING

    def _look(self) -> int:
        word = self._word
        if word is None:
            raise UnknownHandleError("the operation was released")
        return _FORKED if _call.forked else int(word[0])


class Transfer(Operation[Report]):
    """A READ or WRITE that was posted."""

    __slots__ = ()

    def __init__(self, started: int, news: News) -> None:
        super().__init__(started, news, report)


def report(ended: int) -> Report:
    """What a transfer, or a session, has moved."""
    out = ffi.new("kvx_transfer_report *")
    check(lib.kvx_operation_report(ended, out))
    return Report(int(out.bytes), int(out.runs))


def nothing(_: int) -> None:
    """The result of an operation that has none."""


def begin(
    news: News, result: Callable[[int], T], function: Callable[..., int], *arguments: Any
) -> Operation[T]:
    """Calls a function that starts an operation."""
    return Operation(handle(function, *arguments), news, result)
