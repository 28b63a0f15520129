"""Arguments as Mooncake's bindings take them: numbers and texts of any kind, `TypeError` else."""

from __future__ import annotations

import operator
from array import array
from typing import TYPE_CHECKING, Any, SupportsInt

import numpy as np

if TYPE_CHECKING:
    Column = np.ndarray[Any, np.dtype[np.uint64]]
    """Addresses or lengths."""

_LIMIT = 1 << 64


def number(value: object) -> int:
    """An address, a length or an id: whatever is a whole number, from 0 to 2^64 - 1."""
    if isinstance(value, float):
        raise TypeError(f"expected an integer, not {value!r}")
    try:
        whole = _whole(value)
    except Exception as error:
        # NaN, infinities, and what a type of the caller's own raises.
        raise TypeError(f"expected an integer, not {type(value).__name__}: {error}") from None
    if not 0 <= whole < _LIMIT:
        # In hexadecimal, which Python writes at any length.
        raise TypeError(f"{whole:#x} is not in 0 to 2^64 - 1")
    return whole


def _whole(value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, SupportsInt):
            raise
        return int(value)


def numbers(values: object) -> Column:
    """A list of them: any sequence but a text."""
    if isinstance(values, (str, bytes, dict)) or not hasattr(type(values), "__getitem__"):
        raise TypeError(f"expected a list of integers, not {type(values).__name__}")
    items: Any = values
    if isinstance(values, (bytearray, memoryview)):
        # Arrays would take them for the memory of one.
        items = list(values)
    try:
        column = array("Q", items)
    except Exception:
        # Slower, and knows every kind of number.
        column = array("Q", [number(item) for item in items])
    return np.frombuffer(column, np.uint64) if column else np.empty(0, np.uint64)


def raw(value: object) -> bytes:
    """A text's bytes: of a `str` in UTF-8, or as they are."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise TypeError(f"expected a text: {error}") from None
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise TypeError(f"expected a text, not {type(value).__name__}")


def text(value: object) -> str:
    """A text, such as a name of a host."""
    return raw(value).decode("utf-8", "replace")
