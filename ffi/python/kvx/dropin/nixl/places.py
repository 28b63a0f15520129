"""Registered memory by kind, device and address: which piece holds each of many descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvx.dropin.nixl.descriptors import Table
from kvx.dropin.nixl.errors import failure, nixlNotFoundError
from kvx.dropin.nixl.names import nixl_mem_t


class Piece(NamedTuple):
    """Memory that one registration holds."""

    kind: nixl_mem_t
    device: int
    address: int
    length: int


class Found(NamedTuple):
    """Where descriptors lie: columns of piece and offset, and whether a piece holds each at all."""

    piece: NDArray[np.uint32]
    offset: NDArray[np.uint64]
    held: NDArray[np.bool_]


class Places:
    """Pieces as they are at one moment."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        by_device: dict[tuple[nixl_mem_t, int], list[int]] = {}
        for index, piece in enumerate(pieces):
            # Nothing lies in a piece of no length.
            if piece.length:
                by_device.setdefault((piece.kind, piece.device), []).append(index)
        self._shelves = {key: _Shelf(pieces, indices) for key, indices in by_device.items()}

    def find(self, kind: nixl_mem_t, table: Table, whose: str) -> Found:
        """The piece that holds each row.

        Raises:
            nixlNotFoundError: a row lies in none, or not wholly in one.
        """
        found = self.look(kind, table)
        if not found.held.all():
            raise missing(kind, table, found.held, whose)
        return found

    def look(self, kind: nixl_mem_t, table: Table) -> Found:
        """The piece that holds each row, of those that one holds."""
        devices = table[:, 2]
        first = int(devices[0]) if len(devices) else 0
        if len(devices) == 0 or bool((devices == first).all()):
            return self._on(kind, first, table)
        found = Found(
            np.zeros(len(table), np.uint32),
            np.zeros(len(table), np.uint64),
            np.zeros(len(table), np.bool_),
        )
        for device in np.unique(devices):
            rows = np.flatnonzero(devices == device)
            part = self._on(kind, int(device), table[rows])
            found.piece[rows], found.offset[rows] = part.piece, part.offset
            found.held[rows] = part.held
        return found

    def _on(self, kind: nixl_mem_t, device: int, table: Table) -> Found:
        shelf = self._shelves.get((kind, device))
        if shelf is not None:
            return shelf.find(table[:, 0], table[:, 1])
        count = len(table)
        nowhere = np.zeros(count, np.uint32), np.zeros(count, np.uint64)
        return Found(*nowhere, np.zeros(count, np.bool_))


def missing(kind: nixl_mem_t, table: Table, held: NDArray[np.bool_], whose: str) -> Exception:
    """What a row raises that nothing holds."""
    at = int(np.argmin(held))
    address, length, device = (int(value) for value in table[at])
    return failure(
        nixlNotFoundError,
        f"descriptor {at}: {length} bytes at {address:#x} of {kind.name}, device {device}, "
        f"lie in no memory that {whose} registered",
    )


class _Shelf:
    """Pieces of one device, which may overlap."""

    def __init__(self, pieces: Sequence[Piece], indices: list[int]) -> None:
        indices = sorted(indices, key=lambda index: pieces[index].address)
        self._bases = np.array([pieces[index].address for index in indices], np.uint64)
        # Of all that begin at or before a base the one that ends last: if any of them holds a
        # range, that one does.
        best, reach, bases, ends = [], -1, [], []
        for index in indices:
            end = pieces[index].address + pieces[index].length
            if end > reach:
                reach, chosen = end, index
            best.append(chosen)
            bases.append(pieces[chosen].address)
            ends.append(min(reach, (1 << 64) - 1))
        self._piece = np.array(best, np.uint32)
        self._base = np.array(bases, np.uint64)
        self._end = np.array(ends, np.uint64)

    def find(self, addresses: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> Found:
        if len(self._bases) == 1:
            base, end = self._base[0], self._end[0]
            good = (addresses >= base) & (addresses <= end)
            good &= lengths <= end - np.minimum(addresses, end)
            piece = np.full(len(addresses), self._piece[0], np.uint32)
            return Found(piece, addresses - base, good)
        at = np.searchsorted(self._bases, addresses, side="right").astype(np.int64) - 1
        good = at >= 0
        np.maximum(at, 0, out=at)
        end = self._end[at]
        good &= addresses <= end
        good &= lengths <= end - np.minimum(addresses, end)
        return Found(self._piece[at], addresses - self._base[at], good)
