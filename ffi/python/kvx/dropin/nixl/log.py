"""The logger `nixl`, as NIXL's users configure it: what `nixl.logging` offers.

It writes to standard error, where a program's own output is not.
"""

from __future__ import annotations

import logging
import logging.config
import os
from typing import Any

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "kvx": {
            "format": "%(asctime)s NIXL (kvx) %(levelname)-7s %(message)s",
            "datefmt": "%Y-%m-%d %H:%M:%S",
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "kvx"},
    },
    "loggers": {"nixl": {"level": "INFO", "handlers": ["console"], "propagate": False}},
}

#: What NIXL_LOG_LEVEL may say, and what it is for Python and for the engine.
LEVELS: dict[str, tuple[int, str]] = {
    "TRACE": (logging.DEBUG, "trace"),
    "DEBUG": (logging.DEBUG, "debug"),
    "INFO": (logging.INFO, "info"),
    "WARN": (logging.WARNING, "warn"),
    "ERROR": (logging.ERROR, "error"),
    "FATAL": (logging.CRITICAL, "error"),
    "CRITICAL": (logging.CRITICAL, "error"),
}

_configured = False


def get_logger(name: str) -> logging.Logger:
    """The logger `nixl.NAME`."""
    setup_logging()
    return logging.getLogger(f"nixl.{name}")


def setup_logging() -> None:
    """Configures the logger `nixl`, once."""
    global _configured
    if not _configured:
        _configured = True
        logging.config.dictConfig(LOGGING_CONFIG)
        set_log_level_by_env(logging.getLogger("nixl"))


def set_log_level_by_env(nixl_logger: logging.Logger) -> None:
    """Sets the level that NIXL_LOG_LEVEL says, if it says one."""
    said = os.environ.get("NIXL_LOG_LEVEL")
    if not said:
        return
    level = LEVELS.get(said.upper())
    if level is None:
        nixl_logger.warning(
            "NIXL_LOG_LEVEL is %r, which is none of %s: ignored", said, ", ".join(LEVELS)
        )
        return
    nixl_logger.setLevel(level[0])
