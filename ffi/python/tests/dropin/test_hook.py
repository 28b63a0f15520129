"""The hook that puts drop-ins before installed packages: what it does, and that it harms nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvx.dropin import FOLDER

HOOK = Path(__file__).resolve().parents[2] / "data" / "purelib"

WHERE = """
import sys, importlib.util
for name in ("mooncake", "nixl", "nixl_cu12", "nixl_cu13"):
    spec = importlib.util.find_spec(name)
    print(name, spec and spec.origin)
"""


class Site:
    """An interpreter with site-packages of its own, in which nothing is installed at first."""

    def __init__(self, folder: Path, system: bool = False) -> None:
        venv.create(folder, system_site_packages=system, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.packages = folder / "lib" / version / "site-packages"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()

    def install_hook(self) -> None:
        for file in HOOK.iterdir():
            if file.is_file():
                (self.packages / file.name).write_bytes(file.read_bytes())

    def install_kvx(self) -> None:
        """As much of it as the hook looks at."""
        for name in ("mooncake", "nixl", "nixl_cu12", "nixl_cu13"):
            package(self.packages / "kvx" / "dropin" / "path" / name, "whose = 'kvx'")
        package(self.packages / "kvx", "raise RuntimeError('nobody needs to import this')")

    def run(
        self, code: str, variable: str | None = None, *options: str, **others: str
    ) -> subprocess.CompletedProcess[str]:
        environment = dict(others)
        if variable is not None:
            environment["KVX_DROP_IN"] = variable
        return run([str(self.python), *options, "-c", code], environment, self.elsewhere)

    def whose(self, variable: str | None, *options: str, **others: str) -> dict[str, str]:
        """For each package whether it is kvx's, another's, or not there."""
        done = self.run(WHERE, variable, *options, **others)
        places = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        kvx = os.path.join("kvx", "dropin", "path")
        return {
            name: "nobody's" if place == "None" else "kvx's" if kvx in place else "another's"
            for name, place in places.items()
        }


def run(
    command: list[str], environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KVX_", "PYTHON", "MC_"))
    }
    done = subprocess.run(
        command, env={**clean, **environment}, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def package(folder: Path, code: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(textwrap.dedent(code))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """With kvx, the hook, and packages whose place the drop-ins take."""
    made = Site(tmp_path / "site")
    made.install_hook()
    made.install_kvx()
    for name in ("mooncake", "nixl"):
        package(made.packages / name, "whose = 'another'")
    return made


NOBODYS = {"nixl_cu12": "nobody's", "nixl_cu13": "nobody's"}


def test_without_the_variable_nothing_happens(site: Site) -> None:
    assert site.whose(None) == {"mooncake": "another's", "nixl": "another's", **NOBODYS}
    code = "import sys; print('_kvx_dropin' in sys.modules, [f for f in sys.meta_path])"
    with_hook = site.run(code)
    for file in HOOK.iterdir():
        (site.packages / file.name).unlink(missing_ok=True)
    without = site.run(code)
    assert with_hook.stdout == without.stdout
    assert with_hook.stdout.startswith("False")
    assert with_hook.stderr == ""
    assert site.run(code, "").stdout == without.stdout


def test_what_the_variable_names_is_kvxs_and_nothing_else(site: Site) -> None:
    nixl = dict.fromkeys(("nixl", "nixl_cu12", "nixl_cu13"), "kvx's")
    assert site.whose("mooncake") == {"mooncake": "kvx's", "nixl": "another's", **NOBODYS}
    assert site.whose("nixl") == {"mooncake": "another's", **nixl}
    for both in ("nixl,mooncake", "mooncake,nixl", " nixl , mooncake ", "nixl,,mooncake,"):
        assert site.whose(both) == {"mooncake": "kvx's", **nixl}
        assert site.run("pass", both).stderr == ""


def test_neither_the_working_directory_nor_pythonpath_comes_first(site: Site) -> None:
    package(site.elsewhere / "mooncake", "whose = 'another'")
    path = str(site.elsewhere)
    assert site.whose("mooncake", PYTHONPATH=path)["mooncake"] == "kvx's"
    done = site.run("import mooncake; print(mooncake.whose)", "mooncake", PYTHONPATH=path)
    assert done.stdout == "kvx\n"


def test_kvx_itself_is_not_imported_before_a_drop_in_is(site: Site) -> None:
    done = site.run("import sys; print('kvx' in sys.modules)", "mooncake,nixl")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_name_that_is_unknown_is_told_once_with_those_that_are_allowed(site: Site) -> None:
    done = site.run(WHERE, "moncake,nixl,foo")
    (line,) = done.stderr.splitlines()
    assert "moncake, foo" in line
    assert "mooncake, nixl" in line
    assert site.whose("moncake,nixl")["nixl"] == "kvx's"
    assert site.whose("moncake,nixl")["mooncake"] == "another's"
    assert len(site.run("pass", "MOONCAKE").stderr.splitlines()) == 1


def test_where_kvx_is_missing_or_broken_the_interpreter_starts_and_says_so(site: Site) -> None:
    os.rename(site.packages / "kvx", site.packages / "gone")
    done = site.run("import mooncake; print(mooncake.whose)", "mooncake")
    assert done.stdout == "another\n"
    (line,) = done.stderr.splitlines()
    assert "KVX_DROP_IN has no effect" in line
    (site.packages / "_kvx_dropin.py").write_text("this is no Python")
    done = site.run("import mooncake; print(mooncake.whose)", "mooncake")
    assert done.stdout == "another\n"
    (line,) = done.stderr.splitlines()
    assert "KVX_DROP_IN has no effect" in line
    (site.packages / "_kvx_dropin.py").unlink()
    (line,) = site.run("pass", "mooncake").stderr.splitlines()
    assert "KVX_DROP_IN has no effect" in line
    assert site.run("pass").stderr == ""


def test_it_holds_in_processes_that_are_started_from_there(site: Site) -> None:
    code = "import mooncake; print(mooncake.whose)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    assert site.run(child, "mooncake").stdout == "kvx\n"
    spawned = "import multiprocessing as m; print(m.get_context('spawn').Pool(1).map(len, ['ab']))"
    assert site.run(f"if __name__ == '__main__': {spawned}", "mooncake,nixl").stderr == ""


def test_isolated_interpreters_have_it_and_those_without_site_do_not(site: Site) -> None:
    assert site.whose("mooncake", "-I")["mooncake"] == "kvx's"
    assert site.whose("mooncake", "-E")["mooncake"] == "kvx's"
    assert site.whose("mooncake", "-S")["mooncake"] == "nobody's"


def test_it_holds_in_an_environment_that_is_layered_over_another(tmp_path: Path) -> None:
    """As kvx installed for the user or the system, and mooncake in a virtual environment."""
    below = Site(tmp_path / "below")
    below.install_hook()
    below.install_kvx()
    # What the interpreter takes for the user's own packages lies beneath those of `above`.
    base = {"PYTHONUSERBASE": str(tmp_path / "below"), "PYTHONNOUSERSITE": ""}
    above = Site(tmp_path / "above", system=True)
    package(above.packages / "mooncake", "whose = 'another'")
    assert above.whose(None, **base)["mooncake"] == "another's"
    assert above.whose("mooncake", **base)["mooncake"] == "kvx's"
    # Installed in both: the hook runs once.
    above.install_hook()
    above.install_kvx()
    code = "import sys; print(sum(type(f).__module__ == '_kvx_dropin' for f in sys.meta_path))"
    assert above.run(code, "mooncake", **base).stdout == "1\n"


def test_an_installation_that_refers_to_its_sources_is_found(site: Site, tmp_path: Path) -> None:
    os.rename(site.packages / "kvx", tmp_path / "kvx")
    (site.packages / "kvx.pth").write_text(f"{tmp_path}\n")
    assert site.whose("mooncake")["mooncake"] == "kvx's"


def test_the_command_says_where_the_drop_ins_are_and_whose_would_be_imported(
    tmp_path: Path,
) -> None:
    def report(*options: str, **environment: str) -> list[str]:
        command = [sys.executable, "-m", "kvx.dropin", *options]
        return run(command, environment, tmp_path).stdout.splitlines()

    package(tmp_path / "packages" / "mooncake", "raise RuntimeError('is not imported')")
    (tmp_path / "packages" / "mooncake" / "engine.py").write_text("")
    installed = str(tmp_path / "packages")
    assert report("--path") == [FOLDER]
    before = report(PYTHONPATH=installed)
    assert FOLDER in before[0]
    assert "not set" in before[1]
    modules = ["nixl", "nixl_cu12", "nixl_cu13", "mooncake.engine"]
    assert [line.split(":")[0] for line in before[2:]] == modules
    theirs = os.path.join(installed, "mooncake", "engine.py")
    assert before[5] == f"mooncake.engine: not kvx, from {theirs}"
    after = report(PYTHONPATH=os.pathsep.join([FOLDER, installed]))
    ours = os.path.join(FOLDER, "mooncake", "engine.py")
    assert after[5] == f"mooncake.engine: kvx, from {ours}"


def test_the_hook_that_is_installed_makes_mooncakes_engine_kvxs() -> None:
    code = "import sys; print('_kvx_dropin' in sys.modules)"
    if run([sys.executable, "-c", code], {"KVX_DROP_IN": "mooncake"}).stdout != "True\n":
        pytest.skip("the hook is not installed in this interpreter, as it is by the wheel")
    code = "import mooncake.engine; print(mooncake.engine.__file__)"
    done = run([sys.executable, "-c", code], {"KVX_DROP_IN": "mooncake"})
    assert done.stdout == os.path.join(FOLDER, "mooncake", "engine.py") + "\n"
    assert done.stderr == ""
