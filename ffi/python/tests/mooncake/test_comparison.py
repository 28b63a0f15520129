"""The drop-in and the real package, asked the same: result by result they are equal, but for the
differences that are listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cases import CASES, Notes
from differences import DIFFERENCES
from results import entries, expected
from world import Implementation, World

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "compatibility" / "mooncake.md"


@pytest.mark.parametrize("case", CASES)
def test_the_drop_in_answers_as_mooncake_but_for_the_differences(
    case: str, ours: Implementation
) -> None:
    notes = played(case, ours)
    assert notes == expected(case)[1]


@pytest.mark.alternative
@pytest.mark.parametrize("case", CASES)
def test_mooncake_answers_as_recorded(case: str, theirs: Implementation) -> None:
    notes = played(case, theirs)
    # What is undefined there is equal to anything, from this side.
    assert expected(case)[0] == notes


def played(case: str, implementation: Implementation) -> Notes:
    with World(implementation) as world:
        notes = CASES[case](world)
    if not notes:
        pytest.skip(f"{case}: this machine lacks what it needs")
    return notes


def test_every_difference_differs_and_belongs_to_a_case() -> None:
    places = [(entry.case, entry.note) for entry in entries()]
    assert len(places) == len(set(places))
    for entry in entries():
        assert entry.case in CASES
        assert repr(entry.theirs) != repr(entry.ours)


def test_the_document_lists_these_differences_and_no_others() -> None:
    if not DOCUMENT.exists():
        pytest.skip(f"{DOCUMENT} is not there: these are not the sources of the project")
    section = DOCUMENT.read_text(encoding="utf-8").partition("\n## Differences\n")[2]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert sorted(rows) == sorted(DIFFERENCES)
