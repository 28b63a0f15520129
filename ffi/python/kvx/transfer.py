"""One-sided transfers: lists of spans, paired and planned once, posted any number of times."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import numpy as np

from kvx._call import check, ffi, handle, lib, nanoseconds
from kvx._handle import Handle
from kvx.errors import InvalidError
from kvx.operation import Report, Transfer

if TYPE_CHECKING:
    from kvx._news import News

_U32_MAX = (1 << 32) - 1


class Op(enum.IntEnum):
    """Which way a transfer goes."""

    #: From own memory into the peer's.
    WRITE = 0
    #: From the peer's memory into own.
    READ = 1


class Spans(Handle):
    """A list of spans in own memory or in a peer's. `len()` is their number."""

    __slots__ = ("_count", "_news")

    def __init__(self, handle: int, count: int, news: News) -> None:
        super().__init__(handle, lib.kvx_spans_release)
        self._count = count
        self._news = news

    def __len__(self) -> int:
        return self._count

    @staticmethod
    def same_length(**columns: np.ndarray[Any, Any]) -> int:
        """How long the columns are.

        Raises:
            InvalidError: they differ.
        """
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{length} {name}" for name, length in lengths.items())
            raise InvalidError(f"columns: {told}")
        return next(iter(lengths.values()))


class Prepared(Handle):
    """A transfer that is ready to be posted, any number of times."""

    __slots__ = ("_news",)

    def __init__(self, handle: int, news: News) -> None:
        super().__init__(handle, lib.kvx_prepared_release)
        self._news = news

    @property
    def size(self) -> Report:
        """What each post will move."""
        out = ffi.new("kvx_transfer_report *")
        check(lib.kvx_prepared_size(self._handle, out))
        return Report(int(out.bytes), int(out.runs))

    def post(
        self,
        notification: bytes | None = None,
        *,
        deadline: float | None = None,
        total_deadline: float | None = None,
    ) -> Transfer:
        """Posts it. This thread sends the first bytes itself and never blocks on the network.

        Args:
            notification: what the peer's user is told once all data is in place.
            deadline: fails when nothing has moved for so many seconds; default: the engine's.
            total_deadline: fails when it is not done after so many; default: the engine's.

        Raises:
            Error: nothing was posted.
        """
        options = ffi.new("kvx_post_options *")
        options.size = ffi.sizeof("kvx_post_options")
        told = None
        if notification is not None:
            told = ffi.from_buffer("uint8_t[]", notification)
            options.notification = told
            options.notification_len = len(told)
        options.deadline_ns = nanoseconds("deadline", deadline)
        options.total_deadline_ns = nanoseconds("total_deadline", total_deadline)
        return Transfer(handle(lib.kvx_post, self._handle, options), self._news)


def prepare(
    op: Op | str,
    local: Spans,
    remote: Spans,
    local_indices: Any = None,
    remote_indices: Any = None,
) -> Prepared:
    """Pairs two lists and plans the transfer.

    Span i of `local` goes with span i of `remote`; with indices (both, or neither: any sequence or
    array of integers) span `local_indices[i]` with span `remote_indices[i]`.

    Raises:
        InvalidError: lists that do not pair up, indices outside of their list.
        UnknownHandleError: a list that was released.
    """
    code = int(_op(op))
    if local_indices is None and remote_indices is None:
        made = handle(lib.kvx_prepare, code, local._handle, remote._handle)
        return Prepared(made, remote._news)
    if local_indices is None or remote_indices is None:
        raise InvalidError("indices: those of one side only")
    ours = column("local_indices", local_indices, np.uint32)
    theirs = column("remote_indices", remote_indices, np.uint32)
    if len(ours) != len(theirs):
        raise InvalidError(f"indices: {len(ours)} local against {len(theirs)} remote")
    made = handle(
        lib.kvx_prepare_selected,
        code,
        local._handle,
        pointer("uint32_t[]", ours),
        remote._handle,
        pointer("uint32_t[]", theirs),
        len(ours),
    )
    return Prepared(made, remote._news)


def _op(op: Op | str) -> Op:
    if isinstance(op, str):
        try:
            return Op[op]
        except KeyError:
            raise InvalidError(f"op: {op!r} is neither 'WRITE' nor 'READ'") from None
    return Op(op)


def column(name: str, values: Any, kind: Any) -> np.ndarray[Any, Any]:
    """A column of unsigned integers as the library takes it; no copy where it is one already."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidError(f"{name}: of {array.ndim} dimensions, not 1")
    if array.size == 0:
        return np.empty(0, kind)
    if array.dtype.kind not in "iu":
        raise InvalidError(f"{name}: {array.dtype} is no type of integers")
    if array.dtype.kind == "i" and int(array.min()) < 0:
        raise InvalidError(f"{name}: {int(array.min())} is negative")
    if array.dtype.itemsize > np.dtype(kind).itemsize and int(array.max()) > _U32_MAX:
        raise InvalidError(f"{name}: {int(array.max())} is not below 2^32")
    return np.require(array, kind, ["C", "A"])


def indices_of_one(beside: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A column of as many zeros: all spans lie in the first region."""
    return np.zeros(len(beside), np.uint32)


def pointer(kind: str, array: np.ndarray[Any, Any]) -> Any:
    """Where a column lies; it must outlive the call that it is for."""
    return ffi.from_buffer(kind, array) if array.size else ffi.NULL
