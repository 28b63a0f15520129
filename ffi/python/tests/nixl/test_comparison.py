"""The drop-in and the real package, asked the same: result by result they are equal, but for the
differences that are listed."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from nixl_differences import DIFFERENCES
from nixl_record import Record, record

from kvx.dropin import FOLDER

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[3] / "docs" / "compatibility" / "nixl.md"
# What nixl-cu12 1.5.1 answered: `python nixl_record.py PYTHON recorded.json`, with torch there.
RECORDED: Record = json.loads((HERE / "recorded.json").read_text(encoding="ascii"))
# What one look there would read or free memory at random for.
UNDEFINED = {"undefined": True}


@pytest.fixture(scope="session")
def ours() -> Record:
    """What the drop-in answers."""
    return record(sys.executable, FOLDER)


@pytest.fixture(scope="session")
def theirs() -> Record:
    """What the real package answers."""
    python = os.environ.get("KVX_TEST_NIXL_PYTHON")
    if not python:
        pytest.skip("KVX_TEST_NIXL_PYTHON names no interpreter with nixl-cu12")
    return record(python, None)


@pytest.mark.parametrize("case", RECORDED)
def test_the_drop_in_answers_as_nixl_but_for_the_differences(case: str, ours: Record) -> None:
    expected = dict(RECORDED[case])
    for difference in DIFFERENCES.values():
        for place, result in difference.ours.items():
            where, label = place.rsplit(":", 1)
            if where == case:
                expected[label] = result
    assert seen(case, ours) == expected


@pytest.mark.alternative
def test_nixl_answers_as_recorded(theirs: Record) -> None:
    assert list(theirs) == list(RECORDED)
    for case, results in theirs.items():
        if not lacks(results):
            assert results == RECORDED[case], case


def seen(case: str, by: Record) -> dict[str, Any]:
    """What a case saw, or a skip where it lacks something here."""
    results = by[case]
    reason = lacks(results)
    if reason:
        pytest.skip(f"{case}: {reason}")
    return results


def lacks(results: dict[str, Any]) -> str:
    """What a case lacked that it needs."""
    return next((result["skipped"] for result in results.values() if "skipped" in result), "")


def test_every_case_is_recorded(ours: Record) -> None:
    assert list(ours) == list(RECORDED)


def test_every_difference_differs_and_belongs_to_a_look() -> None:
    places = [place for difference in DIFFERENCES.values() for place in difference.ours]
    assert len(places) == len(set(places))
    for difference in DIFFERENCES.values():
        for place, result in difference.ours.items():
            case, label = place.rsplit(":", 1)
            assert RECORDED[case][label] != result


def test_what_is_undefined_there_is_defined_here() -> None:
    places = {place for difference in DIFFERENCES.values() for place in difference.ours}
    for case, results in RECORDED.items():
        for label, result in results.items():
            assert result != UNDEFINED or f"{case}:{label}" in places


def test_every_difference_is_shown() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    for name, difference in DIFFERENCES.items():
        assert difference.ours or difference.shown, name
        for test in difference.shown:
            assert f"def {test}(" in sources, f"{name}: {test}"


def test_the_document_lists_these_differences_and_no_others() -> None:
    if not DOCUMENT.exists():
        pytest.skip(f"{DOCUMENT} is not there: these are not the sources of the project")
    section = DOCUMENT.read_text(encoding="utf-8").partition("\n## Differences\n")[2]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert sorted(rows) == sorted(DIFFERENCES)
