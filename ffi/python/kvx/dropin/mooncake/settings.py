"""The environment variables of Mooncake that mean something here, read at `initialize`."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

LOG = logging.getLogger("kvx.dropin.mooncake")

_DEFAULT_PORTS = range(15000, 17001)
# Seconds: as good as for ever, and the system takes no time of many more.
_LONGEST = 1_000_000
_LEVELS = {
    "TRACE": (logging.DEBUG, "kvx=debug"),
    "INFO": (logging.INFO, "kvx=info"),
    "WARNING": (logging.WARNING, "kvx=warn"),
    "ERROR": (logging.ERROR, "kvx=error"),
}


@dataclass(frozen=True)
class Settings:
    """What the environment says. Times are in seconds."""

    transfer_timeout: float
    connect_timeout: float
    #: No progress for so long fails a transfer too; `None`: only `transfer_timeout` counts.
    progress_timeout: float | None
    #: Ports to listen at: one of these.
    ports: range
    #: The address to listen at, if it is not the host that peers are told.
    bind: str | None
    #: Of names that have both, the IPv6 address.
    ipv6: bool
    #: What the engine logs; `None`: as it would by itself.
    engine_log: str | None


def read() -> Settings:
    """Reads them, and sets the level of the drop-in's logger. What makes no sense is logged."""
    level = os.environ.get("MC_LOG_LEVEL", "").strip().upper()
    engine_log = None
    if level in _LEVELS:
        LOG.setLevel(_LEVELS[level][0])
        engine_log = None if os.environ.get("KVX_LOG") else _LEVELS[level][1]
    elif level:
        LOG.warning("MC_LOG_LEVEL: %s is none of %s", level, ", ".join(_LEVELS))
    return Settings(
        transfer_timeout=_seconds("MC_TRANSFER_TIMEOUT", default=30, least=5),
        connect_timeout=_seconds("MC_HANDSHAKE_CONNECT_TIMEOUT", default=5, least=1),
        progress_timeout=_progress(),
        ports=_ports(),
        bind=os.environ.get("MC_TCP_BIND_ADDRESS") or None,
        ipv6="MC_USE_IPV6" in os.environ,
        engine_log=engine_log,
    )


def _seconds(name: str, default: int, least: int) -> float:
    value = os.environ.get(name)
    if not value:
        return default
    try:
        return min(max(int(value), least), _LONGEST)
    except ValueError:
        LOG.warning("%s: %s is no number of seconds; %d it is", name, value, default)
        return default


def _progress() -> float | None:
    """kvx's own variable: an engine that cannot read it fails to start, and says why."""
    try:
        return float(os.environ["KVX_DEADLINE"])
    except (KeyError, ValueError):
        return None


def _ports() -> range:
    # Both spellings are in use.
    lowest = os.environ.get("MC_MIN_RPC_PORT") or os.environ.get("MC_MIN_PRC_PORT")
    highest = os.environ.get("MC_MAX_RPC_PORT") or os.environ.get("MC_MAX_PRC_PORT")
    try:
        first = int(lowest or _DEFAULT_PORTS.start)
        last = int(highest or _DEFAULT_PORTS.stop - 1)
    except ValueError:
        first, last = 0, 0
    if 0 < first <= last < 65536:
        return range(first, last + 1)
    LOG.warning(
        "ports from %s to %s make no sense; from %d to %d they are",
        lowest,
        highest,
        _DEFAULT_PORTS.start,
        _DEFAULT_PORTS.stop - 1,
    )
    return _DEFAULT_PORTS
