"""Which registration holds a descriptor, against a search through all."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kvx.dropin.nixl.errors import nixlNotFoundError
from kvx.dropin.nixl.names import nixl_mem_t
from kvx.dropin.nixl.places import Piece, Places
from kvx.dropin.nixl.strides import expanded

DRAM, VRAM = nixl_mem_t.DRAM_SEG, nixl_mem_t.VRAM_SEG


def test_they_are_found_as_by_looking_at_one_after_the_other() -> None:
    dice = random.Random(5)
    for _ in range(2000):
        pieces = [
            Piece(
                dice.choice((DRAM, VRAM)), dice.randrange(2), dice.randrange(40), dice.randrange(12)
            )
            for _ in range(dice.randrange(9))
        ]
        rows = [
            (dice.randrange(50), dice.randrange(8), dice.randrange(2))
            for _ in range(dice.randrange(1, 5))
        ]

        def holders(row: tuple[int, int, int], pieces: list[Piece] = pieces) -> set[int]:
            at, length, device = row
            return {
                index
                for index, piece in enumerate(pieces)
                if (piece.kind, piece.device) == (DRAM, device)
                and piece.length
                and piece.address <= at
                and at + length <= piece.address + piece.length
            }

        table = np.array(rows, dtype=np.uint64)
        if all(holders(row) for row in rows):
            found = Places(pieces).find(DRAM, table, "it")
            for index, row in enumerate(rows):
                piece = int(found.piece[index])
                assert piece in holders(row)
                assert int(found.offset[index]) == row[0] - pieces[piece].address
        else:
            with pytest.raises(nixlNotFoundError):
                Places(pieces).find(DRAM, table, "it")


@pytest.mark.parametrize(
    ("address", "length"),
    [(2**64 - 1, 1), (2**64 - 64, 64), (100, 2**64 - 100), (0, 2**64 - 1), (2**63, 2**63)],
)
def test_ends_of_the_address_space_are_places_too(address: int, length: int) -> None:
    places = Places([Piece(DRAM, 0, 2**64 - 128, 64), Piece(DRAM, 0, 50, 100)])
    with pytest.raises(nixlNotFoundError):
        places.find(DRAM, np.array([(address, length, 0)], dtype=np.uint64), "it")
    inside = np.array([(2**64 - 128, 64, 0), (2**64 - 64, 0, 0)], dtype=np.uint64)
    assert places.find(DRAM, inside, "it").offset.tolist() == [0, 64]


def test_strided_runs_expand_in_order() -> None:
    dice = random.Random(6)
    for _ in range(300):
        runs = []
        for _ in range(dice.randrange(1, 6)):
            length = dice.randrange(9)
            stride = max(1, length + dice.randrange(9))
            runs.append(
                (dice.randrange(1000), length, dice.randrange(3), stride, dice.randrange(1, 6))
            )
        wanted = [(a + i * s, n, d) for a, n, d, s, c in runs for i in range(c)]
        assert expanded(np.array(runs, dtype=np.uint64)).tolist() == [list(row) for row in wanted]


@pytest.mark.parametrize(
    "run",
    [
        (0, 64, 0, 64, 0),
        (0, 64, 0, 0, 2),
        (0, 64, 0, 32, 2),
        (0, 64, 0, 2**63, 3),
        (2**64 - 1, 64, 0, 64, 1),
        (64, 1, 0, 1, 2**64 - 1),
    ],
)
def test_runs_that_make_no_sense_are_errors(run: tuple[int, ...]) -> None:
    with pytest.raises(nixlNotFoundError):
        expanded(np.array([run], dtype=np.uint64))
