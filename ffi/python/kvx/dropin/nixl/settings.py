"""What an agent's engine is opened with: KVX_ variables, then NIXL's and UCX's, then defaults."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import unicodedata
from collections.abc import Mapping
from typing import Any

from kvx import Engine
from kvx.dropin.nixl.log import LEVELS, get_logger
from kvx.errors import InvalidError, IoError

logger = get_logger("kvx")

_YES = frozenset(("y", "yes", "1", "true", "on"))
_NO = frozenset(("n", "no", "0", "false", "off"))
_LONGEST_NAME = 255


def open_engine(agent: str, params: Mapping[str, str]) -> Engine:
    """The engine of an agent, which lets in who holds its metadata.

    `params` are those of a backend: `num_threads`, and `device_list` or `ucx_devices`, which name
    the interfaces that others are told to come by.
    """
    options: dict[str, Any] = {"log": _log()}
    environment = os.environ
    threads = _count("num_threads", params.get("num_threads", ""))
    if threads and "KVX_IO_THREADS" not in environment:
        options["io_threads"] = min(threads, os.cpu_count() or 1)
    if "KVX_ADVERTISE" not in environment:
        advertise = _interfaces(
            params.get("device_list")
            or params.get("ucx_devices")
            or environment.get("UCX_NET_DEVICES", "")
        )
        if advertise:
            options["advertise"] = advertise
    name = engine_name(agent)
    options["metadata_auth"] = True
    if "KVX_BIND" in environment:
        return Engine(name, **options)
    return _on_every_interface(0, name=name, **options)


def open_listener(port: int) -> Engine:
    """The engine of an agent's listener: for holders of the key of KVX_AUTH_KEY_FILE, or on
    loopback for this user's processes."""
    # Neither is for the environment to say: listeners of one environment are several engines, and
    # who dials one has no metadata of it.
    options: dict[str, Any] = {
        "log": _log(),
        "name": f"listener-{secrets.token_hex(16)}",
        "metadata_auth": False,
    }
    opens = "KVX_AUTH_KEY_FILE" in os.environ or os.environ.get("KVX_INSECURE") == "1"
    if not opens:
        if port:
            logger.warning(
                "The listener answers on loopback only: set KVX_AUTH_KEY_FILE to a file with a key "
                "that all hosts share, or KVX_INSECURE=1 to let anyone in"
            )
        return Engine(bind=f"127.0.0.1:{port}", **options)
    return _on_every_interface(port, **options)


def _on_every_interface(port: int, **options: Any) -> Engine:
    try:
        return Engine(bind=f"[::]:{port}", **options)
    except IoError:
        # Where there is no IPv6.
        return Engine(bind=f"0.0.0.0:{port}", **options)


def engine_name(agent: str) -> str:
    """The name of an agent's engine: its own, where an engine may be called so."""
    encoded = agent.encode("utf-8", "surrogateescape")
    plain = 0 < len(encoded) <= _LONGEST_NAME
    if plain and not any(unicodedata.category(char) in ("Cc", "Cs") for char in agent):
        return agent
    return f"nixl-{hashlib.sha256(encoded).hexdigest()}"


def captures_telemetry(configured: bool) -> bool:
    """Whether transfers are measured: as NIXL_TELEMETRY_ENABLE says, else as configured.

    Raises:
        RuntimeError: the variable says neither yes nor no.
    """
    said = os.environ.get("NIXL_TELEMETRY_ENABLE")
    if said is None:
        return configured
    if said.lower() in _YES:
        return True
    if said.lower() in _NO:
        return False
    raise RuntimeError(f"NIXL_TELEMETRY_ENABLE is {said!r}, which is neither yes nor no")


def _log() -> str | None:
    """What the engine logs, unless KVX_LOG says it."""
    if "KVX_LOG" in os.environ:
        return None
    level = LEVELS.get(os.environ.get("NIXL_LOG_LEVEL", "").upper())
    return f"kvx={level[1] if level else 'warn'}"


def _count(what: str, value: str) -> int:
    if not value:
        return 0
    try:
        count = int(value)
    except ValueError:
        raise InvalidError(f"{what}: {value!r} is no number") from None
    if count < 0:
        raise InvalidError(f"{what}: {count} is negative")
    return count


def _interfaces(devices: str) -> str:
    """Those of a list of devices that are network interfaces: `mlx5_0:1,eth0` names `eth0`."""
    wanted = [device.strip().split(":")[0] for device in devices.split(",") if device.strip()]
    if not wanted or "all" in wanted:
        return ""
    there = {name for _, name in socket.if_nameindex()}
    found = [device for device in wanted if device in there]
    if not found:
        logger.info("None of the devices %s is a network interface of this host", devices)
    return ",".join(found)
