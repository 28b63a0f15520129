"""Indices into lists of descriptors, in any of the forms that callers have them in."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvx.dropin.nixl.errors import failure, nixlInvalidParamError


def indices(what: str, values: object) -> NDArray[Any]:
    """A column of integers; whether they lie in the list, the engine checks.

    Raises:
        ValueError: an array of more or fewer dimensions than one, or not of numbers.
        RuntimeError: no array, and no list of integers either.
        nixlInvalidParamError: fractions.
    """
    if isinstance(values, np.ndarray):
        return _of_array(what, values)
    if isinstance(values, range):
        return np.arange(values.start, values.stop, values.step)
    if isinstance(values, (str, bytes, bytearray, dict)):
        raise RuntimeError(f"{what}: {type(values).__name__} is no list of indices")
    try:
        listed = list(values)  # type: ignore[call-overload]
    except TypeError:
        raise RuntimeError(f"{what}: {values!r:.80} is no list of indices") from None
    return _of_list(what, listed)


def _of_array(what: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim != 1:
        raise ValueError(f"{what}: of {values.ndim} dimensions, not 1")
    kind = values.dtype.kind
    if kind in "iu":
        return values
    if kind == "b":
        return values.astype(np.uint8)
    if kind == "f":
        whole = values.astype(np.int64)
        if not bool((whole == values).all()):
            raise failure(nixlInvalidParamError, f"{what}: not all are integers")
        return whole
    if kind == "O":
        return _of_list(what, values.tolist())
    raise ValueError(f"{what}: {values.dtype} is no type of indices")


def _of_list(what: str, values: list[Any]) -> NDArray[Any]:
    try:
        found = np.array(values)
    except (ValueError, OverflowError):
        found = None
    if found is not None and found.ndim == 1 and found.dtype.kind in "iu":
        return found
    plain = []
    for value in values:
        try:
            if isinstance(value, (float, np.floating)):
                raise TypeError
            plain.append(operator.index(value))
        except TypeError:
            raise RuntimeError(f"{what}: {value!r:.80} is no index") from None
    if any(not 0 <= index < 1 << 32 for index in plain):
        raise failure(nixlInvalidParamError, f"{what}: an index lies outside of its list")
    return np.array(plain, np.uint32)
