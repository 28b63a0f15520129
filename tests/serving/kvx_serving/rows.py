"""What the program tells `cargo xtask serving`: a line for each thing that was checked.

    KVX-SUITE vLLM, NixlConnector
    KVX-PASS 17 tokens, alone
    KVX-FAIL 100 tokens, alone: token 3 is 17, expected 900
    KVX-SKIP the test: the reason

Rows belong to the suite that was named last; their names have no colon. All other lines are for a person.
"""

from __future__ import annotations

# Rows of the suite that failed.
_failures = 0


def suite(name: str) -> None:
    """Names the suite of the rows that follow."""
    global _failures
    _failures = 0
    note(f"KVX-SUITE {name}")


def passed(row: str) -> None:
    """It held."""
    note(f"KVX-PASS {row}")


def failed(row: str, reason: str) -> None:
    """It did not."""
    global _failures
    _failures += 1
    note(f"KVX-FAIL {row}: {one_line(reason)}")


def failures() -> int:
    """How many rows of the suite have failed."""
    return _failures


def skipped(row: str, reason: str) -> None:
    """It could not be tried here."""
    note(f"KVX-SKIP {row}: {one_line(reason)}")


def note(line: str) -> None:
    """A line for a person."""
    print(line, flush=True)


def one_line(text: str) -> str:
    """A reason may come from anywhere, and must not look like a row of its own."""
    return " ".join(text.split())[:500]
