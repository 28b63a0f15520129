"""What each case has to come to, for the real package and for the drop-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from differences import DIFFERENCES, Difference

PATH = Path(__file__).resolve().parent / "results.json"
"""What is the same for both, recorded from the real package by record.py."""


def expected(case: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The notes of Mooncake, and of the drop-in."""
    same = json.loads(PATH.read_text())[case]
    own = [entry for entry in entries() if entry.case == case]
    theirs = {**same, **{entry.note: entry.theirs for entry in own}}
    ours = {**same, **{entry.note: entry.ours for entry in own}}
    return theirs, ours


def entries() -> list[Difference]:
    """All differences that are allowed."""
    return [entry for listed in DIFFERENCES.values() for entry in listed]
