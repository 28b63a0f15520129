"""NIXL's named numbers: kinds of memory, operations, statuses."""

from __future__ import annotations

import enum


class _Named(enum.Enum):
    """A name for a number, which it can be converted to, and not a number itself."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return hash(self.value)

    @classmethod
    def _missing_(cls, value: object) -> None:
        if not isinstance(value, int):
            raise TypeError(f"{cls.__name__}: {value!r} is no number")


class _Numeric(_Named):
    """One that equals its number, too."""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, int) and int(self) == other)

    def __hash__(self) -> int:
        return hash(self.value)


class nixl_mem_t(_Numeric):
    """Kinds of memory."""

    DRAM_SEG = 0
    VRAM_SEG = 1
    BLK_SEG = 2
    OBJ_SEG = 3
    FILE_SEG = 4


class nixl_xfer_op_t(_Numeric):
    """Which way a transfer goes."""

    NIXL_READ = 0
    NIXL_WRITE = 1


class nixl_status_t(_Numeric):
    """What a call came to; those that fail raise instead."""

    NIXL_IN_PROG = 1
    NIXL_SUCCESS = 0
    NIXL_ERR_NOT_POSTED = -1
    NIXL_ERR_INVALID_PARAM = -2
    NIXL_ERR_BACKEND = -3
    NIXL_ERR_NOT_FOUND = -4
    NIXL_ERR_MISMATCH = -5
    NIXL_ERR_NOT_ALLOWED = -6
    NIXL_ERR_REPOST_ACTIVE = -7
    NIXL_ERR_UNKNOWN = -8
    NIXL_ERR_NOT_SUPPORTED = -9


class nixl_thread_sync_t(_Named):
    """How an agent is kept safe from threads. Agents here always are."""

    NIXL_THREAD_SYNC_NONE = 0
    NIXL_THREAD_SYNC_STRICT = 1
    NIXL_THREAD_SYNC_RW = 2
    NIXL_THREAD_SYNC_DEFAULT = 0


class nixl_cost_t(_Named):
    """Where an estimate of a transfer's cost comes from."""

    NIXL_COST_ANALYTICAL_BACKEND = 0


DEFAULT_COMM_PORT = 8888
#: What stands for the local side when a list of descriptors is prepared.
NIXL_INIT_AGENT = ""
