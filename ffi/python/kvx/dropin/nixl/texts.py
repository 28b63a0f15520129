"""Text that callers give as str or bytes, and numbers that must be numbers."""

from __future__ import annotations

import operator


def text(what: str, value: object) -> str:
    """A name. Bytes that are no UTF-8 stay what they are, by surrogates.

    Raises:
        TypeError: it is neither str nor bytes.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "surrogateescape")
    raise TypeError(f"{what}: expected str or bytes, not {type(value).__name__}")


def octets(what: str, value: object) -> bytes:
    """Bytes, or text as UTF-8.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"{what}: expected str or bytes, not {type(value).__name__}")


def number(what: str, value: object, most: int) -> int:
    """A number from 0 to `most`.

    Raises:
        TypeError: it is none, or outside.
    """
    if isinstance(value, float):
        raise TypeError(f"{what}: {value} is no integer")
    found = operator.index(value)  # type: ignore[arg-type]
    if not 0 <= found <= most:
        raise TypeError(f"{what}: {found} is not from 0 to {most}")
    return found
