"""What comes from outside as bytes: metadata, serialized descriptors, notifications. Nothing of it
is executed, and whatever is wrong with it is an error."""

from __future__ import annotations

import pickle
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from kvx.dropin.nixl.descriptors import nixlRegDList, nixlXferDList
from kvx.dropin.nixl.envelope import Envelope, Kind
from kvx.dropin.nixl.errors import nixlMismatchError
from kvx.dropin.nixl.letters import heading, opened
from kvx.dropin.nixl.names import nixl_mem_t
from kvx.dropin.nixl.serialized import decode, encode

DRAM, VRAM = nixl_mem_t.DRAM_SEG, nixl_mem_t.VRAM_SEG
ENVELOPES = (
    Envelope("a", True, True, [], b"x" * 40),
    Envelope("ä€\0\n", True, False, [Kind(DRAM, 0), Kind(VRAM, 2**64 - 1)], bytes(range(200))),
    Envelope("b" * 5000, False, False, [Kind(DRAM, n) for n in range(300)], b"y" * 3000),
    Envelope("\udcff", False, True, [], b"z" * 40),
)
LISTS: tuple[Any, ...] = (
    nixlXferDList(DRAM),
    nixlXferDList(VRAM, [(1, 2, 3), (2**64 - 1, 2**63, 5)]),
    nixlXferDList(DRAM, np.arange(3000, dtype=np.uint64).reshape(1000, 3)),
    nixlRegDList(DRAM, [(1, 2, 3, b"\xff\0"), (4, 5, 6, "text")]),
    [],
    [(1, "two", b"\xff"), (-1, 2**70, ""), ()],
)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_metadata_is_what_it_was(envelope: Envelope) -> None:
    assert Envelope.decode(envelope.encode()) == envelope


@pytest.mark.parametrize("descs", LISTS)
def test_descriptors_are_what_they_were(descs: Any) -> None:
    found = decode(encode(descs))
    assert type(found) is type(descs)
    assert found == descs


@pytest.mark.parametrize("desc", [((1, 2), (3, 4), (5, 6)), (1, 2, (3,)), ([1], [2], [3])])
def test_entries_of_a_descriptor_that_are_no_numbers_are_errors(desc: Any) -> None:
    for count in (1, 2):
        with pytest.raises(RuntimeError, match="is no integer"):
            nixlXferDList(DRAM, [desc] * count)


def altered(data: bytes, dice: random.Random) -> bytes:
    """Bytes with something wrong: cut, longer, or changed; with a good checksum or a bad one."""
    changed = bytearray(data)
    how = dice.randrange(4)
    if how == 0:
        del changed[dice.randrange(len(changed)) :]
    elif how == 1:
        changed += dice.randbytes(dice.randrange(1, 9))
    else:
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(len(changed))
            if how == 2:
                changed[place] = dice.randrange(256)
            else:
                changed[place : place + 4] = struct.pack(
                    "<I", dice.choice((0, 1, 2**31, 2**32 - 1))
                )
    if dice.random() < 0.8 and len(changed) > 4:
        changed[-4:] = struct.pack("<I", zlib.crc32(changed[:-4]))
    return bytes(changed)


def test_altered_metadata_is_an_error_or_another() -> None:
    dice = random.Random(7)
    good = [envelope.encode() for envelope in ENVELOPES]
    wrong = 0
    for _ in range(20_000):
        data = altered(dice.choice(good), dice)
        try:
            again = Envelope.decode(data).encode()
        except nixlMismatchError:
            wrong += 1
        else:
            # What is taken is taken as it stands.
            assert again == data
    assert wrong > 10_000


def test_altered_descriptors_are_an_error_or_others() -> None:
    dice = random.Random(7)
    good = [encode(descs) for descs in LISTS]
    wrong = 0
    for _ in range(20_000):
        try:
            decode(altered(dice.choice(good), dice))
        except ValueError:
            wrong += 1
    assert wrong > 10_000


def test_a_count_that_lies_takes_no_memory() -> None:
    for kind in (1, 2, 3):
        body = struct.pack("<4sBBHIQ", b"KVXD", 1, kind, 0, 0, 2**62)
        with pytest.raises(ValueError, match="cut off"):
            decode(body + struct.pack("<I", zlib.crc32(body)))
    body = struct.pack("<4sHHI", b"KVXN", 1, 1, 1) + b"a" + struct.pack("<I", 2**32 - 1)
    with pytest.raises(nixlMismatchError):
        Envelope.decode(body + struct.pack("<I", zlib.crc32(body)))


class Executed:
    """Says so if it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Executed, "ran", True))


def test_nothing_that_is_deserialized_is_executed(nixl: Any) -> None:
    agent = nixl.nixl_agent("a", nixl.nixl_agent_config(backends=[]))
    with pytest.raises(ValueError, match="no serialized descriptors"):
        agent.deserialize_descs(pickle.dumps(Executed()))
    with pytest.raises(nixl._bindings.nixlMismatchError):
        nixl.nixl_agent("b").add_remote_agent(pickle.dumps(Executed()))
    assert not Executed.ran


@pytest.mark.parametrize("name", ["a", "ä€", "x" * 3000, "\udcff"])
@pytest.mark.parametrize("message", [b"", b"m", bytes(range(256))])
def test_letters_are_what_they_were(name: str, message: bytes) -> None:
    assert opened(heading(name) + message) == (name, message)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"KVXA",
        b"KVXA\0\0\0\0rest",
        b"KVXA\x05\0\0\0abc",
        b"KVXA\xff\xff\xff\xffabc",
        b"hello" * 9,
    ],
)
def test_what_is_no_letter_is_none(data: bytes) -> None:
    assert opened(data) is None
