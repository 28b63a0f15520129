"""Worker processes of one implementation, as the tests see them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent

HANG = 100.0
"""Seconds after which a worker that does not answer hangs."""


class Implementation:
    """An interpreter in which `mooncake.engine` is one or the other."""

    def __init__(self, python: str, environment: Mapping[str, str]) -> None:
        self.python = python
        self.environment = environment


class Worker:
    """A process; see worker.py for what it can be told."""

    def __init__(
        self,
        implementation: Implementation,
        environment: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
    ) -> None:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MC_", "KVX_", "PYTHON"))
        }
        self.log_file = log_file = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*before, implementation.python, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            env={**clean, **implementation.environment, **(environment or {})},
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.module_file = self.do("import")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def send(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def answer(self, seconds: float = HANG) -> Any:
        """What came of the oldest order that was sent: a value, or how it failed."""
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"the worker hangs; it said:\n{self.log()}") from None
        if not line:
            self._answers.put("")
            return {"dies": signal.Signals(-self.process.wait(HANG)).name}
        answer = json.loads(line)
        if "raises" in answer:
            return {"raises": answer["raises"]}
        return answer["value"]

    def do(self, do: str, **arguments: Any) -> Any:
        self.send(do, **arguments)
        return self.answer()

    def call(self, method: str, *args: Any, engine: str = "e", **kwargs: Any) -> Any:
        """Calls a method of the engine."""
        return self.do("call", method=method, args=list(args), kwargs=kwargs, engine=engine)

    def begin(self, thread: str, method: str, *args: Any, engine: str = "e") -> None:
        """Calls it on a thread of its own."""
        self.do("begin", thread=thread, method=method, args=list(args), kwargs={}, engine=engine)

    def join(self, thread: str, seconds: float = HANG / 2) -> Any:
        """What came of that, or "under way"."""
        outcome = self.do("join", thread=thread, timeout=seconds)
        return outcome["value"] if isinstance(outcome, dict) and "value" in outcome else outcome

    def buffer(self, name: str, length: int, fill: int = 0) -> int:
        """The address of a new buffer of this name."""
        address = self.do("buffer", name=name, length=length, fill=fill)
        assert isinstance(address, int)
        return address

    def read(self, name: str, offset: int, length: int) -> bytes:
        return bytes.fromhex(self.do("read", name=name, offset=offset, length=length))

    def start(self, host: str = "127.0.0.1", engine: str = "e") -> str:
        """A new engine that listens; its name for peers."""
        self.do("new", engine=engine)
        code = self.call("initialize", host, "P2PHANDSHAKE", "tcp", "", engine=engine)
        assert code == 0, f"{code}:\n{self.log()}"
        return f"{host}:{self.call('get_rpc_port', engine=engine)}"

    def stop(self) -> None:
        """Stops it; none of its threads runs any more when this returns."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def log(self) -> str:
        """What the process has said on stderr."""
        size = os.fstat(self.log_file.fileno()).st_size
        return os.pread(self.log_file.fileno(), size, 0).decode("utf-8", "replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(HANG)
        for file in (self.process.stdin, self.process.stdout):
            assert file is not None
            with contextlib.suppress(BrokenPipeError):
                file.close()


class World:
    """Starts workers, and ends them."""

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation
        self._workers: list[Worker] = []

    def worker(
        self, environment: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
    ) -> Worker:
        worker = Worker(self.implementation, environment, before)
        self._workers.append(worker)
        return worker

    def pair(self, length: int = 1 << 20, environment: Mapping[str, str] | None = None) -> Pair:
        """Two workers whose engines listen; the second's buffer `b` is registered.

        The environment is the first's.
        """
        initiator, target = self.worker(environment), self.worker()
        initiator.start()
        name = target.start()
        near = initiator.buffer("a", length, fill=7)
        far = target.buffer("b", length, fill=1)
        assert target.call("register_memory", far, length) == 0
        return Pair(initiator, target, name, near, far)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()


class Pair:
    """An initiator and a target, whose name it knows, and the address of a buffer of each."""

    def __init__(self, initiator: Worker, target: Worker, name: str, near: int, far: int) -> None:
        self.initiator = initiator
        self.target = target
        self.name = name
        self.near = near
        self.far = far
