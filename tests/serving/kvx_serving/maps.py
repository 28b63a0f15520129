"""Which transfer engines a process has mapped, by /proc/PID/maps."""

from __future__ import annotations

import re
from pathlib import Path

# The shared libraries of each, wherever they are installed.
ENGINES = {
    "kvx": re.compile(r"/kvx/_native/|/libkvx[^/]*\.so"),
    "NIXL": re.compile(r"nixl"),
    "UCX": re.compile(r"/libuc[ptsm][-.]|/libuc[ptsm]_|/ucx/"),
    "Mooncake": re.compile(r"mooncake|/libtransfer_engine"),
}


def libraries(pid: int) -> set[str]:
    """The shared libraries and other files that a process has mapped; none if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    paths = (line.split(maxsplit=5)[5:] for line in lines)
    return {path[0] for path in paths if path and path[0].startswith("/")}


def engines(pid: int) -> set[str]:
    """The engines of which a process has mapped something."""
    mapped = libraries(pid)
    return {name for name, own in ENGINES.items() if any(own.search(path) for path in mapped)}


def title(pid: int) -> str:
    """What a process calls itself."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return command.replace(b"\0", b" ").decode(errors="replace").strip()
