"""The project's examples for Python, as a reader would start them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "python"


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(example: str) -> None:
    if example == "tensors.py" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed here")
    done = subprocess.run(
        [sys.executable, EXAMPLES / example],
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
        env=dict(os.environ, KVX_LOG="kvx=error"),
    )
    assert "equal" in done.stdout
