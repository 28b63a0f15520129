"""Notifications between agents: whose they are, and what they say.

    4   magic `KVXA`
    4   length of the sender's name, little-endian, and the name in UTF-8
    ... the message

An engine tells who a peer is by an id; agents by names, also those that the receiver never added.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_MAGIC = b"KVXA"
_HEAD = struct.Struct("<4sI")


class Letter(NamedTuple):
    """A notification of an agent."""

    sender: str
    message: bytes


def heading(sender: str) -> bytes:
    """What stands before each message of this agent."""
    name = sender.encode("utf-8", "surrogateescape")
    return _HEAD.pack(_MAGIC, len(name)) + name


def opened(data: bytes) -> Letter | None:
    """A notification's parts; `None` if it is not from an agent."""
    if len(data) < _HEAD.size:
        return None
    magic, length = _HEAD.unpack_from(data)
    end = _HEAD.size + length
    if magic != _MAGIC or length == 0 or end > len(data):
        return None
    return Letter(data[_HEAD.size : end].decode("utf-8", "surrogateescape"), data[end:])
