"""What of an installed mooncake is still there behind the drop-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from world import Implementation

from kvx.dropin import FOLDER


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A package of the name, as far as the drop-in cares."""
    folder = tmp_path / "mooncake"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "print('runs')\nfrom mooncake.pool import Pool\n__all__ = ['Pool']\nVERSION = '9'\n"
    )
    (folder / "pool.py").write_text("from mooncake import engine\nclass Pool:\n    of = engine\n")
    (folder / "engine.py").write_text("TransferEngine = 'theirs'\n")
    (folder / "store.py").write_text("from mooncake.engine import TransferEngine\n")
    (folder / "deep" / "__init__.py").write_text("from mooncake.store import TransferEngine\n")
    return tmp_path


def said(code: str, *path: str, python: str = sys.executable, variable: str = "") -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KVX_", "PYTHON"))}
    environment.update(PYTHONPATH=os.pathsep.join(path), KVX_DROP_IN=variable)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HOOK = str(Path(__file__).resolve().parents[2] / "data" / "purelib")

OURS = os.path.join(FOLDER, "mooncake", "engine.py")


@pytest.mark.parametrize("by", ["PYTHONPATH", "hook"])
def test_submodules_resolve_and_see_kvxs_engine(installed: Path, by: str) -> None:
    path = [FOLDER, str(installed)] if by == "PYTHONPATH" else [str(installed), HOOK]
    code = "" if by == "PYTHONPATH" else "import _kvx_dropin; "
    code += "import mooncake.engine, mooncake.store, mooncake.deep, sys; "
    code += "m = sys.modules; e = m['mooncake.engine']; print(e.__file__, "
    code += "m['mooncake.store'].TransferEngine is m['mooncake.deep'].TransferEngine)"
    assert said(code, *path, variable="mooncake") == f"{OURS} True"


def test_the_installed_package_is_run_only_for_what_the_drop_in_lacks(installed: Path) -> None:
    path = (FOLDER, str(installed))
    assert said("import mooncake.engine, mooncake.store", *path) == ""
    assert said("from mooncake import engine; print(engine.__file__)", *path) == OURS
    code = "from mooncake import Pool; print(Pool.of.__file__)"
    assert said(code, *path).splitlines() == ["runs", OURS]
    code = "import mooncake; print(mooncake.VERSION, mooncake.VERSION)"
    assert said(code, *path).splitlines() == ["runs", "9 9"]
    code = "import mooncake; print(hasattr(mooncake, 'nothing'))"
    assert said(code, *path).splitlines() == ["runs", "False"]


def test_without_an_installed_package_there_is_the_engine_alone() -> None:
    assert said("import mooncake.engine; print(mooncake.engine.__file__)", FOLDER) == OURS
    code = "import mooncake; print(hasattr(mooncake, 'store'), hasattr(mooncake, '__all__'))"
    assert said(code, FOLDER) == "False False"


@pytest.mark.alternative
def test_the_real_packages_modules_resolve(theirs: Implementation) -> None:
    """Its pure modules, at least: the interpreter is another, in which kvx need not run."""
    place = said("import mooncake; print(mooncake.__path__[0])", "", python=theirs.python)
    code = (
        "import mooncake.mooncake_config, mooncake.engine, importlib.util; "
        "print(mooncake.engine.__file__, mooncake.mooncake_config.__file__, "
        "importlib.util.find_spec('mooncake.store').origin)"
    )
    said_places = said(code, FOLDER, os.path.dirname(place)).split()
    assert said_places[:2] == [OURS, os.path.join(place, "mooncake_config.py")]
    assert os.path.dirname(said_places[2]) == place
