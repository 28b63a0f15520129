"""An agent's own registered memory."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from kvx import Engine, Region, Spans
from kvx.dropin.nixl.descriptors import Table, nixlRegDList
from kvx.dropin.nixl.envelope import Kind
from kvx.dropin.nixl.errors import failure, in_nixls_words, nixlNotFoundError
from kvx.dropin.nixl.names import nixl_mem_t
from kvx.dropin.nixl.places import Piece, Places


class Registration(NamedTuple):
    """One registered descriptor."""

    piece: Piece
    #: `None` of a descriptor without length.
    region: Region | None


class Registrations:
    """Memory registered with one engine. Used from many threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._held: list[Registration] = []
        # Of what is held now; `None` when that has changed.
        self._known: tuple[Places, list[Registration]] | None = None

    def add(self, descs: nixlRegDList) -> None:
        """Registers all of a list, or nothing of it."""
        added: list[Registration] = []
        with in_nixls_words():
            try:
                for piece in _pieces(descs):
                    region = None
                    if piece.length:
                        region = self._engine.register_address(piece.address, piece.length)
                    added.append(Registration(piece, region))
            except BaseException:
                _deregister(added)
                raise
        with self._lock:
            self._held = [*self._held, *added]
            self._known = None

    def remove(self, descs: nixlRegDList) -> None:
        """Deregisters all of a list, or nothing of it; nothing lands there when it returns.

        Raises:
            nixlNotFoundError: a descriptor that is not exactly one that was registered.
        """
        with self._lock:
            removed = self.chosen(descs)
            gone = set(map(id, removed))
            self._held = [held for held in self._held if id(held) not in gone]
            self._known = None
        with in_nixls_words():
            _deregister(removed)

    def chosen(self, descs: nixlRegDList) -> list[Registration]:
        """Those that a list names.

        Raises:
            nixlNotFoundError: a descriptor that is not exactly one that is registered.
        """
        by_piece: dict[Piece, list[Registration]] = {}
        for registration in reversed(self._held):
            by_piece.setdefault(registration.piece, []).append(registration)
        found = []
        for piece in _pieces(descs):
            same = by_piece.get(piece)
            if not same:
                raise failure(
                    nixlNotFoundError,
                    f"{piece.length} bytes at {piece.address:#x} of {piece.kind.name}, device "
                    f"{piece.device}, were not registered so",
                )
            found.append(same.pop())
        return found

    def all(self) -> list[Registration]:
        """All there are."""
        return self._held

    def metadata(self, chosen: list[Registration]) -> tuple[list[Kind], bytes]:
        """What others need to reach these, with the kind of each region."""
        known = [(held.piece, held.region) for held in chosen if held.region is not None]
        with in_nixls_words():
            blob = self._engine.metadata([region for _, region in known])
        return [Kind(piece.kind, piece.device) for piece, _ in known], blob

    def spans(self, kind: nixl_mem_t, table: Table) -> Spans:
        """Places of own memory.

        Raises:
            nixlNotFoundError: a row that does not lie in registered memory.
        """
        places, held = self._now()
        found = places.find(kind, table, "this agent")
        used = np.unique(found.piece)
        regions = [region for index in used if (region := held[int(index)].region) is not None]
        position = np.searchsorted(used, found.piece).astype(np.uint32)
        with in_nixls_words():
            return self._engine.spans(regions, found.offset, table[:, 1], position)

    def spans_of_myself(self, kind: nixl_mem_t, table: Table) -> Spans:
        """Places of own memory, as the other side of a transfer to oneself."""
        places, _ = self._now()
        places.find(kind, table, "this agent")
        with in_nixls_words():
            return self._engine.myself().spans_at(table[:, 0], table[:, 1])

    def _now(self) -> tuple[Places, list[Registration]]:
        with self._lock:
            if self._known is None:
                held = self._held
                self._known = Places([registration.piece for registration in held]), held
            return self._known


def _pieces(descs: nixlRegDList) -> list[Piece]:
    kind = descs.getType()
    return [
        Piece(kind, device, address, length) for address, length, device in descs.table().tolist()
    ]


def _deregister(registrations: list[Registration]) -> None:
    for registration in registrations:
        if registration.region is not None:
            registration.region.deregister()
