"""Where the two packages may differ, and nowhere else.

docs/compatibility/nixl.md has the same names, and says why.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Difference(NamedTuple):
    """What the drop-in answers where it does not answer as NIXL."""

    #: By `module:case:label`, what the drop-in's look gives.
    ours: dict[str, Any]
    #: Tests that show what cases cannot: of processes, and of time.
    shown: tuple[str, ...] = ()


def _raises(what: str, where: str, *labels: str) -> dict[str, Any]:
    return {f"{where}:{label}": {"raises": what} for label in labels}


def _gives(what: Any, where: str, *labels: str) -> dict[str, Any]:
    return {f"{where}:{label}": {"gives": what} for label in labels}


_ROWS = [{"tuple": [1000, 105, 0]}, {"tuple": [2000, 30, 1]}, {"tuple": [1010, 20, 0]}]
_REG_ROWS = [
    {"tuple": [1000, 105, 0, {"bytes": "78"}]},
    {"tuple": [2000, 30, 1, {"bytes": "797a"}]},
    {"tuple": [1010, 20, 0, {"bytes": ""}]},
]
_BEYOND = ("item -1", "item 3", "item 100", "item -4", "set beyond", "remove beyond",
           "remove negative")  # fmt: skip
_DRAM = {"list": ["DRAM_SEG"]}
_LIST = {"instance": "nixl_prepped_dlist_handle"}
_WRONG = "nixlInvalidParamError"

DIFFERENCES: dict[str, Difference] = {
    "one-backend": Difference(
        {
            **_gives({"list": ["UCX"]}, "config:agent_attributes", "plugin_list"),
            **_gives({"list": ["UCX"]}, "config:plugins", "list"),
        }
    ),
    "backend-options": Difference(
        _gives(
            {"dict": {"device_list": "", "num_threads": "0", "ucx_devices": ""}},
            "config:plugins",
            "params",
        )
    ),
    "no-gpu-memory": Difference(
        {
            **_gives({"dict": {"UCX": _DRAM}}, "config:agent_attributes", "backend_mems"),
            **_gives({"dict": {"UCX": _DRAM}}, "config:create_backend", "mems"),
            **_gives(_DRAM, "config:plugins", "mems", "backend mems"),
            **_raises("nixlNotFoundError", "memory:register_vram", "vram", "cuda"),
        }
    ),
    "list-bounds": Difference(
        {
            **_raises("IndexError", "descriptors:xfer_list", *_BEYOND),
            **_raises("IndexError", "descriptors:reg_list", *_BEYOND),
            **_gives({"list": _ROWS}, "descriptors:xfer_list", "iterate"),
            **_gives({"tuple": _ROWS}, "descriptors:xfer_list", "iterate tuple"),
            **_gives(True, "descriptors:xfer_list", "contains"),
            **_gives({"list": _REG_ROWS}, "descriptors:reg_list", "iterate"),
            **_gives({"tuple": _REG_ROWS}, "descriptors:reg_list", "iterate tuple"),
            **_gives(True, "descriptors:reg_list", "contains"),
        }
    ),
    "damaged-state": Difference(
        _raises(
            "ValueError",
            "descriptors:set_state",
            "nixlXferDList nothing",
            "nixlXferDList noise",
            "nixlRegDList nothing",
            "nixlRegDList noise",
        )
    ),
    "serialized-descriptors": Difference(
        {
            **_raises(
                "ValueError",
                "descriptors:serialized",
                "nothing",
                "half",
                "a pickle that runs code",
                "a pickle of a number",
            ),
            **_raises("TypeError", "descriptors:serialized", "something else"),
        },
        ("test_nothing_that_is_deserialized_is_executed",),
    ),
    "wrapped-addresses": Difference(
        {
            **_raises("nixlNotFoundError", "lists:prepare_strided", "wraps around"),
            **_raises(
                "nixlNotFoundError", "lists:prepare_places", "local wraps around", "a wraps around"
            ),
        }
    ),
    "nested-registrations": Difference(
        _gives(
            _LIST,
            "lists:prepare_nested",
            "128 at 4096",
            "64 at 9000",
            "8192 at 9000",
            "64 at 40000",
        )
    ),
    "odd-indices": Difference(
        _raises(
            _WRONG,
            "transfers:indices",
            *(
                f"{side} {form}"
                for side in ("local", "remote")
                for form in (
                    "fractions",
                    "much too large",
                    "beyond 32 bits",
                    "beyond 32 bits int64",
                    "beyond 64 bits",
                )
            ),
        )
    ),
    "checked-handles": Difference(
        {
            **_raises(_WRONG, "transfers:make_foreign", "another agent's list"),
            **_raises(
                _WRONG,
                "transfers:released",
                "check",
                "transfer",
                "telemetry",
                "backend",
                "cost",
                "list",
                "transfer of a list",
                "check of a list",
            ),
            **_raises(
                "AttributeError", "transfers:released", "a number", "zero", "number for a list"
            ),
            **_raises("nixlNotFoundError", "metadata:removed", "make", "post"),
            **_raises(_WRONG, "bindings:agent", "backend that is none"),
        },
        ("test_a_released_handle_is_an_error", "test_made_up_numbers_are_errors"),
    ),
    "notification-backend": Difference(
        {
            **_gives(None, "notifications:send", "backend"),
            **_gives(
                {"dict": {"one": {"list": [{"bytes": "78"}]}}}, "notifications:send", "backend came"
            ),
        }
    ),
    "restarted-agents": Difference(
        {
            **_gives({"bytes": "74776f"}, "metadata:restarted", "add"),
            **_gives(3, "metadata:restarted", "read"),
        },
        ("test_a_restarted_peer_is_added_again_under_its_name",),
    ),
    "enum-values": Difference(
        _raises(
            "ValueError",
            "bindings:enums",
            *(
                f"{kind} of number out of range"
                for kind in (
                    "nixl_mem_t",
                    "nixl_xfer_op_t",
                    "nixl_status_t",
                    "nixl_thread_sync_t",
                    "nixl_cost_t",
                )
            ),
        )
    ),
    "compared-memory": Difference(
        _raises("RuntimeError", "bindings:utils", "another"),
    ),
    "fenced-release": Difference(
        {},
        (
            "test_nothing_lands_after_the_release_of_an_active_transfer",
            "test_a_release_that_is_not_confirmed_raises_and_may_be_repeated",
            "test_a_handle_that_nobody_holds_gives_its_transfer_up",
        ),
    ),
    "fenced-deregistration": Difference(
        {},
        (
            "test_nothing_lands_after_deregistration_returns",
            "test_a_write_to_memory_that_was_freed_is_an_error_and_its_owner_lives",
        ),
    ),
    "only-what-was-registered": Difference(
        {},
        (
            "test_memory_that_was_never_registered_is_out_of_reach",
            "test_what_forged_metadata_asks_for_is_refused",
        ),
    ),
    "deadlines": Difference(
        {},
        (
            "test_a_transfer_with_a_stopped_peer_ends",
            "test_an_agent_that_is_not_there_ends_a_transfer",
        ),
    ),
    "told-without-polling": Difference(
        {}, ("test_the_notification_of_a_transfer_leaves_without_polling",)
    ),
    "bounded-notifications": Difference({}, ("test_what_nobody_takes_is_bounded_and_said",)),
    "only-agents-that-were-added": Difference(
        {},
        (
            "test_who_does_not_hold_the_metadata_is_not_let_in",
            "test_who_calls_itself_by_anothers_name_is_not_believed",
        ),
    ),
    "listener-key": Difference(
        {},
        (
            "test_strangers_learn_nothing_at_a_listener_and_evict_nobody",
            "test_a_listener_without_a_key_answers_on_loopback_alone",
            "test_a_listener_with_a_key_lets_its_holders_in",
        ),
    ),
    "log-output": Difference({}, ("test_logs_go_to_standard_error",)),
}
