"""Which interpreters have which `mooncake.engine`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from world import Implementation, World

from kvx.dropin import FOLDER


@pytest.fixture(scope="session")
def ours() -> Implementation:
    """The drop-in of the kvx that is tested."""
    return Implementation(sys.executable, {"PYTHONPATH": FOLDER})


@pytest.fixture(scope="session")
def theirs() -> Implementation:
    """The real package."""
    python = os.environ.get("KVX_TEST_MOONCAKE_PYTHON")
    if not python:
        pytest.skip("KVX_TEST_MOONCAKE_PYTHON names no interpreter with the real mooncake")
    implementation = Implementation(python, {})
    with World(implementation) as world:
        worker = world.worker()
        if not isinstance(worker.module_file, str):
            reason = worker.do("import_error")
            pytest.skip(f"{python} cannot import the real mooncake.engine: {reason}")
    return implementation


@pytest.fixture
def world(ours: Implementation) -> Iterator[World]:
    """Processes of the drop-in, which end with the test."""
    with World(ours) as created:
        yield created
