"""No server outlives the program; and the loopback device of a network of its own.

`cargo xtask serving` starts the program in namespaces of its own where it may: then all ports are
free, for some servers listen on all addresses, and all processes end with the first. A vLLM server is three processes or more, and they start others in process groups of their own. Who
loses its parent comes to this process (a subreaper), so that all can be found and ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

# For a server that was asked to end.
GRACE_S = 15.0

libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """Has this process ended with the one that started it, and adopts whom its servers leave."""
    for option, argument in ((PR_SET_PDEATHSIG, signal.SIGTERM), (PR_SET_CHILD_SUBREAPER, 1)):
        if libc.prctl(option, int(argument), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def bring_loopback_up() -> None:
    """It is down in a network namespace that is new."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle,
        # Of a network that is not its own, the program cannot say, and need not.
        contextlib.suppress(PermissionError),
    ):
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def free_port() -> int:
    """A port on loopback at which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def descendants(session: int | None = None) -> list[int]:
    """All living processes below this one, or those of a session among them."""
    children: dict[int, list[int]] = {}
    sessions: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            pid = int(folder.name)
            parent, sessions[pid] = parent_and_session(pid)
            children.setdefault(parent, []).append(pid)
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found.extend(children.get(pid, []))
    return [pid for pid in found if session in (None, sessions[pid])]


def parent_and_session(pid: int) -> tuple[int, int]:
    """Zeros for a process that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, 0
    # The name, in brackets, may hold anything.
    state, parent, _, session = stat.rpartition(")")[2].split()[:4]
    return (0, 0) if state == "Z" else (int(parent), int(session))


def end_descendants(session: int | None = None) -> None:
    """Ends every process below this one, or those of a session, and waits until they are gone."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for pid in descendants(session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        deadline = time.monotonic() + GRACE_S
        while descendants(session):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"processes that do not end: {descendants(session)}")
