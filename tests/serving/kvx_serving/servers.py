"""A server: started by a script in examples/serving, waited for, asked, ended."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from kvx_serving import isolation, rows

# Imports alone take a minute on a slow machine, and two servers start at once.
START_S = 900.0

# How much is shown of the log of a server that failed.
ERROR = re.compile(r"\b\w*(Error|Exception): ")
FIRST_ERRORS = 5
TAIL_LINES = 20
# SGLang writes all its options to one line.
TAIL_WIDTH = 300


class Broken(Exception):
    """A server does not do what every server does: it ended, does not start, or does not answer."""


@contextlib.contextmanager
def running(
    name: str, command: list[str], environment: dict[str, str], url: str, log: Path
) -> Iterator[Server]:
    """Starts a server, and ends it in the end; if something broke, its log is shown."""
    server = Server(name, command, environment, url, log)
    try:
        yield server
    except Broken:
        server.show_log()
        raise
    finally:
        server.end()


class Server:
    """A running server, with all processes of its session."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], url: str, log: Path
    ) -> None:
        self.name = name
        self.url = url
        self.log = log
        rows.note(f"starting {name}: {' '.join(command)} (log: {log})")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                # Should this program be killed, the server is too.
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=surroundings(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self) -> None:
        """Ends all its processes."""
        isolation.end_descendants(self.process.pid)
        self.process.wait()

    def wait_until_ready(self, path: str) -> None:
        """Until GET of this path is answered with 200."""
        began = time.monotonic()
        while not answers(self.url + path):
            if self.process.poll() is not None:
                raise Broken(f"{self.name} ended with status {self.process.returncode}")
            if time.monotonic() - began > START_S:
                raise Broken(f"{self.name} is not ready after {START_S:.0f} s")
            time.sleep(0.5)
        rows.note(f"{self.name} is ready after {time.monotonic() - began:.0f} s")

    def processes(self) -> list[int]:
        """Its own process and all below it."""
        return isolation.descendants(self.process.pid)

    def show_log(self) -> None:
        """The first errors in the log, for the last ones are but consequences, and its end."""
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if ERROR.search(line)][:FIRST_ERRORS]
        rows.note(f"{self.log}, the first errors and the end:")
        for line in [*errors, "...", *lines[-TAIL_LINES:]]:
            rows.note("    " + line[-TAIL_WIDTH:])


def surroundings(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a server. Its `python` and `vllm` are those of this interpreter."""
    own = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
    }
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, **own, **environment}


def answers(url: str) -> bool:
    """Whether somebody answers there, with 200."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            status: int = answer.status
            return status == 200
    except OSError:
        return False
