"""Where the two implementations may differ, and nowhere else.

docs/compatibility/mooncake.md has the same names, and says why.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Crash:
    """Equal to the end of a process by a signal, whichever it was."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and set(other) == {"dies"}

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "a crash"


class Anything:
    """Equal to everything: what is undefined there."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "anything"


CRASH, ANYTHING = Crash(), Anything()


class Difference(NamedTuple):
    """A note that differs, with what it is there and here."""

    case: str
    note: str
    theirs: Any
    ours: Any


def _before_initialize(code: Any, *methods: str) -> tuple[Difference, ...]:
    return tuple(Difference("before_initialize", method, CRASH, code) for method in methods)


def _codes(case: str, theirs: Any, ours: Any, *notes: str) -> tuple[Difference, ...]:
    return tuple(Difference(case, note, theirs, ours) for note in notes)


DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "before-initialize": (
        *_before_initialize(
            -1,
            "get_rpc_port",
            "register_memory",
            "unregister_memory",
            "batch_register_memory",
            "batch_unregister_memory",
            "transfer_sync_write",
            "transfer_sync_read",
            "transfer_sync",
            "batch_transfer_sync_write",
            "batch_transfer_sync_read",
            "batch_transfer_sync",
            "transfer_check_status",
            "free_managed_buffer",
        ),
        *_before_initialize(
            0,
            "batch_transfer_async_write",
            "batch_transfer_async_read",
            "batch_transfer_async",
            "transfer_submit_write",
            "get_first_buffer_address",
            "allocate_managed_buffer",
        ),
        *_before_initialize([], "get_notifies"),
    ),
    "batch-ids": (
        *_codes(
            "numbers_of_no_batch",
            CRASH,
            -1,
            "made up, waited for",
            "made up, looked at",
            "0, waited for",
            "0, looked at",
        ),
        Difference("numbers_of_no_batch", "waited for twice", [0, CRASH], [0, -1]),
        Difference("numbers_of_no_batch", "looked at twice", [1, ANYTHING], [1, -1]),
        Difference("numbers_of_no_batch", "empty, looked at", CRASH, 1),
    ),
    "submitted-status": (Difference("submitted_and_waited_for", "status", -1, 0),),
    "batch-size": (Difference("large_batches", "3000", -1, 0),),
    "bound-host": _codes(
        "initializing",
        0,
        -1,
        "host nosuch.invalid",
        "host 256.1.1.1",
        "host 192.0.2.1",
        "host ",
    ),
    "unknown-server": _codes(
        "initializing", CRASH, -1, "server redis://127.0.0.1:1", "server nonsense://x"
    ),
    "null-address": (Difference("registering_nothing", "null", 0, -1),),
    "unpaired-lists": (Difference("registering_many", "fewer addresses", 0, -1),),
    "managed-bounds": (
        Difference("managed_buffers", "one byte more", 0, -1),
        Difference("managed_buffers_after", "freed and written", 0, -1),
    ),
    "raw-addresses": (
        Difference("bytes_of_no_memory", "more than given", 0, -1),
        Difference("bytes_of_no_memory", "read", CRASH, {"$bytes": ""}),
        Difference("bytes_of_no_memory", "write", CRASH, -1),
    ),
    "fresh-metadata": (Difference("first_buffer_of_a_peer", "unregistered", False, True),),
    "long-notifications": (Difference("long_notifications", "2000000", [0, []], [0, [2000000]]),),
    "opcode-values": (
        Difference("arguments", "check opcode of none such", True, {"raises": "ValueError"}),
    ),
    "inner-engine": (
        Difference("about_the_engine", "pointer", True, False),
        Difference("about_the_engine", "engine", {"type": "InnerTransferEngine"}, None),
    ),
    "other-names": (
        Difference(
            "arguments",
            "check public names",
            ANYTHING,
            [
                "Read",
                "SUPPORT_CUDA",
                "SUPPORT_EFA",
                "SUPPORT_HIP",
                "SUPPORT_INTRA_NVLINK",
                "SUPPORT_MNNVL",
                "SUPPORT_MUSA",
                "TransferEngine",
                "TransferNotify",
                "TransferOpcode",
                "Write",
            ],
        ),
    ),
}
