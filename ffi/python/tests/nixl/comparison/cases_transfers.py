"""Making, posting, polling and releasing transfers."""

from __future__ import annotations

from typing import Any

import numpy as np
from observe import Package, Seen, arrived, finished, moved


def case_indices(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    good = [0, 2, 1]
    forms: dict[str, Any] = {
        "list": good,
        "tuple": tuple(good),
        "range": range(3),
        "int32": np.array(good, dtype=np.int32),
        "int64": np.array(good, dtype=np.int64),
        "uint64": np.array(good, dtype=np.uint64),
        "uint8": np.array(good, dtype=np.uint8),
        "float": np.array(good, dtype=np.float64),
        "fractions": np.array([0.5, 1.5, 2.5]),
        "bool": np.array([False, True, True]),
        "big endian": np.array(good, dtype=">i4"),
        "object": np.array(good, dtype=object),
        "every other": np.repeat(np.array(good, dtype=np.int64), 2)[::2],
        "reversed": np.array(good, dtype=np.int32)[::-1],
        "numpy numbers": [np.int64(0), np.int32(2), np.uint8(1)],
        "floats in a list": [0.0, 2.0, 1.0],
        "text in a list": ["0", "2", "1"],
        "bools in a list": [False, True, True],
        "none in a list": [None, 1, 2],
        "set": {0, 1, 2},
        "generator": (index for index in good),
        "text": "012",
        "bytes": b"\x00\x02\x01",
        "number": 3,
        "none": None,
        "dict": {0: 0, 1: 1, 2: 2},
        "column": np.array(good, dtype=np.int64).reshape(3, 1),
        "row": np.array(good, dtype=np.int64).reshape(1, 3),
        "scalar array": np.array(1),
        "lists in a list": [[0], [2], [1]],
        "negative": [0, -1, 2],
        "negative int32": np.array([0, -1, 2], dtype=np.int32),
        "negative int64": np.array([0, -1, 2], dtype=np.int64),
        "too large": [0, 4, 2],
        "too large int32": np.array([0, 4, 2], dtype=np.int32),
        "much too large": [0, 2**31, 2],
        "beyond 32 bits": [0, 2**32 + 1, 2],
        "beyond 32 bits int64": np.array([0, 2**32 + 1, 2], dtype=np.int64),
        "beyond 63 bits": np.array([0, 2**64 - 1, 2], dtype=np.uint64),
        "beyond 64 bits": [0, 2**64, 2],
    }
    for label, form in forms.items():
        seen(
            f"local {label}",
            lambda f=form: pair.one.make_prepped_xfer("WRITE", local, f, remote, good),
        )
        if label != "generator":
            seen(
                f"remote {label}",
                lambda f=form: pair.one.make_prepped_xfer("WRITE", local, good, remote, f),
            )
    return seen


def case_index_counts(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)

    def make(left: Any, right: Any) -> Any:
        return pair.one.make_prepped_xfer("READ", local, left, remote, right)

    seen("unequal", lambda: make([0, 1], [0]))
    seen("unequal the other way", lambda: make([0], [0, 1]))
    seen("none of them", lambda: make([], []))
    seen("none of them, arrays", lambda: make(np.zeros(0, np.int64), np.zeros(0, np.int64)))
    seen("none on one side", lambda: make([], [0]))
    seen("the same twice", lambda: make([0, 0], [0, 1]))
    seen("all to one", lambda: make([0, 1, 2], [0, 0, 0]))
    seen("all", lambda: make(range(4), range(4)))
    seen("more than there are", lambda: make([0] * 9, [1] * 9))
    seen("mixed forms", lambda: make([0, 1], np.array([2, 3], dtype=np.int32)))
    return seen


def case_make(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    make = pair.one.make_prepped_xfer

    seen("write", lambda: make("WRITE", local, [0], remote, [0]))
    seen("read", lambda: make("READ", local, [0], remote, [0]))
    for op in ("write", "RD", "", None, 1):
        seen(f"op {op!r}", lambda o=op: make(o, local, [0], remote, [0]))
    seen("op of the bindings", lambda: make(p.bindings.NIXL_WRITE, local, [0], remote, [0]))
    seen("swapped", lambda: make("WRITE", remote, [0], local, [0]))
    seen("two local sides", lambda: make("WRITE", local, [0], local, [1]))
    seen("two remote sides", lambda: make("WRITE", remote, [0], remote, [1]))
    other = pair.one.prep_xfer_dlist("two", pair.theirs.table((0, 32)), "DRAM")
    seen("unequal lengths", lambda: make("WRITE", local, [0], other, [0]))
    for label, notif in {
        "bytes": b"x",
        "text": "x",
        "empty": b"",
        "no text": b"\xff\x00",
        "none": None,
        "number": 3,
        "bytearray": bytearray(b"x"),
    }.items():
        seen(f"notification {label}", lambda n=notif: make("WRITE", local, [0], remote, [0], n))
    seen("backend", lambda: make("WRITE", local, [0], remote, [0], b"", ["UCX"]))
    seen("unknown backend", lambda: make("WRITE", local, [0], remote, [0], b"", ["NOPE"]))
    seen("no merging", lambda: make("WRITE", local, [0], remote, [0], skip_desc_merge=True))
    seen(
        "keywords",
        lambda: make(
            operation="WRITE",
            local_xfer_side=local,
            local_indices=[0],
            remote_xfer_side=remote,
            remote_indices=[0],
            notif_msg=b"",
            backends=[],
            skip_desc_merge=False,
        ),
    )
    seen("numbers for handles", lambda: make("WRITE", "a", [0], "b", [0]))
    seen("none for handles", lambda: make("WRITE", None, [0], None, [0]))
    mine = pair.one.prep_xfer_dlist("one", pair.mine.table((8192, 64)), "DRAM")
    seen("to oneself", lambda: moved(pair.one, make("WRITE", local, [0], mine, [0])))
    return seen


def case_make_foreign(p: Package) -> Seen:
    """Handles of another agent."""
    seen = Seen()
    pair = p.pair()
    local, _ = pair.sides(4)
    theirs = pair.two.prep_xfer_dlist("one", pair.mine.table((0, 64)), "DRAM")
    seen.daring(
        "another agent's list", lambda: pair.one.make_prepped_xfer("WRITE", local, [0], theirs, [0])
    )
    return seen


def case_initialize(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    pair = p.pair()

    def dlist(memory: Any, *places: tuple[int, int], mem: Any = None, device: int = 0) -> Any:
        return b.nixlXferDList(mem or b.DRAM_SEG, memory.rows(*places, device=device))

    mine, theirs = dlist(pair.mine, (0, 64)), dlist(pair.theirs, (0, 64))
    init = pair.one.initialize_xfer
    seen("write", lambda: moved(pair.one, init("WRITE", mine, theirs, "two")))
    seen("there", lambda: int(pair.theirs.array[63]))
    seen(
        "read",
        lambda: moved(
            pair.one, init("READ", dlist(pair.mine, (64, 64)), dlist(pair.theirs, (64, 64)), "two")
        ),
    )
    seen("here", lambda: int(pair.mine.array[127]))
    seen("notification", lambda: init("WRITE", mine, theirs, "two", b"x"))
    for op in ("write", "", None):
        seen(f"op {op!r}", lambda o=op: init(o, mine, theirs, "two"))
    seen("rows", lambda: init("WRITE", pair.mine.rows((0, 64)), pair.theirs.rows((0, 64)), "two"))
    seen(
        "tables", lambda: init("WRITE", pair.mine.table((0, 64)), pair.theirs.table((0, 64)), "two")
    )
    seen("counts", lambda: init("WRITE", dlist(pair.mine, (0, 64), (64, 64)), theirs, "two"))
    seen("lengths", lambda: init("WRITE", dlist(pair.mine, (0, 32)), theirs, "two"))
    seen("same sum", lambda: init("WRITE", dlist(pair.mine, (0, 32), (32, 32)), theirs, "two"))
    seen(
        "empty",
        lambda: init("WRITE", b.nixlXferDList(b.DRAM_SEG), b.nixlXferDList(b.DRAM_SEG), "two"),
    )
    seen(
        "nothing",
        lambda: moved(
            pair.one, init("WRITE", dlist(pair.mine, (0, 0)), dlist(pair.theirs, (0, 0)), "two")
        ),
    )
    seen("unknown agent", lambda: init("WRITE", mine, theirs, "three"))
    seen("agent as bytes", lambda: init("WRITE", mine, theirs, b"two"))
    seen("no agent", lambda: init("WRITE", mine, theirs, ""))
    seen("agent none", lambda: init("WRITE", mine, theirs, None))
    seen("local not registered", lambda: init("WRITE", theirs, theirs, "two"))
    seen("remote not registered", lambda: init("WRITE", mine, mine, "two"))
    seen("swapped", lambda: init("WRITE", theirs, mine, "two"))
    seen("wrong device", lambda: init("WRITE", dlist(pair.mine, (0, 64), device=1), theirs, "two"))
    seen(
        "wrong remote device",
        lambda: init("WRITE", mine, dlist(pair.theirs, (0, 64), device=1), "two"),
    )
    seen(
        "type without memory",
        lambda: init("WRITE", dlist(pair.mine, (0, 64), mem=b.FILE_SEG), theirs, "two"),
    )
    seen("outside", lambda: init("WRITE", dlist(pair.mine, (65530, 64)), theirs, "two"))
    seen("self", lambda: moved(pair.one, init("WRITE", mine, dlist(pair.mine, (4096, 64)), "one")))
    seen("backend", lambda: init("WRITE", mine, theirs, "two", b"", ["UCX"]))
    seen("unknown backend", lambda: init("WRITE", mine, theirs, "two", b"", ["NOPE"]))
    seen(
        "registration lists",
        lambda: init(
            "WRITE", b.nixlRegDList(b.DRAM_SEG, [(*pair.mine.rows((0, 64))[0], "")]), theirs, "two"
        ),
    )
    seen("none", lambda: init("WRITE", None, theirs, "two"))
    seen(
        "keywords",
        lambda: init(
            operation="WRITE",
            local_descs=mine,
            remote_descs=theirs,
            remote_agent="two",
            notif_msg=b"",
            backends=[],
        ),
    )
    return seen


def case_bytes_move(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    for index in range(4):
        pair.mine.array[index * 128 : index * 128 + 64] = 10 + index

    def spots(memory: Any) -> list[int]:
        return [int(x) for x in memory.array[[0, 63, 64, 128, 191, 256, 384, 447, 448]]]

    write = pair.one.make_prepped_xfer("WRITE", local, [0, 1, 3], remote, [3, 0, 1])
    seen("write", lambda: moved(pair.one, write))
    seen("then", lambda: spots(pair.theirs))
    pair.theirs.array[384:448] = 99
    read = pair.one.make_prepped_xfer("READ", local, [2], remote, [3])
    seen("read", lambda: moved(pair.one, read))
    seen("then read", lambda: spots(pair.mine))
    pair.theirs.array[384:448] = 98
    seen("again", lambda: moved(pair.one, read))
    seen("then again", lambda: spots(pair.mine))
    seen(
        "to oneself",
        lambda: moved(
            pair.one,
            pair.one.initialize_xfer(
                "READ",
                p.bindings.nixlXferDList(p.bindings.DRAM_SEG, pair.mine.rows((1024, 64))),
                p.bindings.nixlXferDList(p.bindings.DRAM_SEG, pair.mine.rows((0, 64))),
                "one",
            ),
        ),
    )
    seen("then to oneself", lambda: int(pair.mine.array[1030]))
    return seen


def case_states(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    one = pair.one
    handle = one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    seen("before", lambda: one.check_xfer_state(handle))
    seen("telemetry before", lambda: one.get_xfer_telemetry(handle))
    seen("post is text", lambda: type(one.transfer(handle)).__name__)
    seen("done", lambda: finished(one, handle))
    seen("still", lambda: one.check_xfer_state(handle))
    seen("again", lambda: moved(one, handle))
    seen("backend", lambda: one.query_xfer_backend(handle))
    seen("cost", lambda: [type(x).__name__ for x in one.estimate_xfer_cost(handle)])
    seen("telemetry off", lambda: one.get_xfer_telemetry(handle))
    seen("type", lambda: type(handle).__name__)
    seen("repr", lambda: repr(handle).split("(")[0] + repr(handle).split(",")[1])
    seen("truth", lambda: bool(handle))
    seen("release", lambda: one.release_xfer_handle(handle))
    seen("release again", lambda: one.release_xfer_handle(handle))
    seen("release by itself", handle.release)
    seen("repr of released", lambda: repr(handle).split(",")[1])
    fresh = one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    seen("release what was never posted", fresh.release)
    for label, value in {"none": None, "text": "a"}.items():
        seen(f"transfer {label}", lambda v=value: one.transfer(v))
        seen(f"check {label}", lambda v=value: one.check_xfer_state(v))
        seen(f"release {label}", lambda v=value: one.release_xfer_handle(v))
        seen(f"telemetry {label}", lambda v=value: one.get_xfer_telemetry(v))
        seen(f"backend {label}", lambda v=value: one.query_xfer_backend(v))
        seen(f"cost {label}", lambda v=value: one.estimate_xfer_cost(v))
    return seen


def case_released(p: Package) -> Seen:
    """What was released is not to be used."""
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    one = pair.one
    handle = one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    moved(one, handle)
    handle.release()
    seen.daring("check", lambda: one.check_xfer_state(handle))
    seen.daring("transfer", lambda: one.transfer(handle))
    seen.daring("telemetry", lambda: one.get_xfer_telemetry(handle))
    seen.daring("backend", lambda: one.query_xfer_backend(handle))
    seen.daring("cost", lambda: one.estimate_xfer_cost(handle))
    local.release()
    seen.daring("list", lambda: one.make_prepped_xfer("WRITE", local, [0], remote, [0]))
    seen.daring("a number", lambda: one.check_xfer_state(12345))
    seen.daring("zero", lambda: one.check_xfer_state(0))
    seen.daring(
        "number for a list", lambda: one.make_prepped_xfer("WRITE", 12345, [0], remote, [0])
    )
    seen.daring("transfer of a list", lambda: one.transfer(remote))
    seen.daring("check of a list", lambda: one.check_xfer_state(remote))
    return seen


def case_released_lists(p: Package) -> Seen:
    """A transfer does not need the lists that it was made of."""
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    handle = pair.one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    local.release()
    remote.release()
    seen("transfer", lambda: moved(pair.one, handle))
    return seen


def case_notifications_of_transfers(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    one, two = pair.one, pair.two
    for op in ("WRITE", "READ"):
        handle = one.make_prepped_xfer(op, local, [0], remote, [0], b"made")
        posts: dict[str, tuple[Any, ...]] = {
            "made": (),
            "posted": (b"posted",),
            "after that": (),
            "text": ("text",),
        }
        for label, notif in posts.items():
            if seen(f"{op} {label}", lambda h=handle, n=notif: moved(one, h, *n)):
                seen(f"{op} {label} came", lambda: arrived(two, also=one))
    silent = one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    moved(one, silent)
    one.send_notif("two", b"end")
    seen("none without", lambda: arrived(two, also=one))
    for label, value in {"none": None, "number": 3, "list": [1]}.items():
        seen(f"posted {label}", lambda v=value: one.transfer(silent, v))
    to_self = one.prep_xfer_dlist("one", pair.mine.table((8192, 64)), "DRAM")
    mine = one.make_prepped_xfer("WRITE", local, [0], to_self, [0], b"mine")
    moved(one, mine)
    seen("to oneself", lambda: arrived(one))
    binary = one.make_prepped_xfer("WRITE", local, [0], remote, [0], b"\xff\x00\xfe")
    moved(one, binary)
    seen("binary", lambda: arrived(two, also=one))
    return seen


def case_telemetry(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair(capture_telemetry=True)
    local, remote = pair.sides(4)
    one = pair.one
    handle = one.make_prepped_xfer("WRITE", local, [0, 1], remote, [0, 1])
    seen("before", lambda: one.get_xfer_telemetry(handle))
    moved(one, handle)
    one.check_xfer_state(handle)
    telemetry = one.get_xfer_telemetry(handle)
    names = ("startTime", "postDuration", "xferDuration", "totalBytes", "descCount")
    seen("type", lambda: type(telemetry).__name__)
    seen("attributes", lambda: sorted(n for n in dir(telemetry) if not n.startswith("_")))
    seen("types", lambda: {name: type(getattr(telemetry, name)).__name__ for name in names})
    seen("bytes", lambda: telemetry.totalBytes)
    seen("descriptors", lambda: telemetry.descCount)
    import time

    seen(
        "starts in microseconds of the clock",
        lambda: abs(telemetry.startTime / 1e6 - time.time()) < 3600,
    )
    seen("the post is part of it", lambda: 0 <= telemetry.postDuration <= telemetry.xferDuration)
    adjacent = p.memory(4096)
    one.register_memory([(adjacent.address, 4096, 0, "")], "DRAM")
    near = one.prep_xfer_dlist("", adjacent.table((0, 64), (64, 64), (128, 64)), "DRAM")
    far = one.prep_xfer_dlist("two", pair.theirs.table((0, 64), (64, 64), (128, 64)), "DRAM")
    merged = one.make_prepped_xfer("WRITE", near, [0, 1, 2], far, [0, 1, 2])
    moved(one, merged)
    one.check_xfer_state(merged)
    seen("merged", lambda: one.get_xfer_telemetry(merged).descCount)
    seen("merged bytes", lambda: one.get_xfer_telemetry(merged).totalBytes)
    apart = one.make_prepped_xfer("WRITE", near, [0, 1, 2], far, [0, 1, 2], skip_desc_merge=True)
    moved(one, apart)
    one.check_xfer_state(apart)
    seen("not merged", lambda: one.get_xfer_telemetry(apart).descCount)
    return seen


def case_telemetry_environment(p: Package) -> Seen:
    import os

    seen = Seen()
    for value in (
        "y",
        "n",
        "yes",
        "no",
        "1",
        "0",
        "true",
        "false",
        "on",
        "off",
        "TRUE",
        "",
        "maybe",
    ):
        for capture in (False, True):
            os.environ["NIXL_TELEMETRY_ENABLE"] = value

            def look(capture: bool = capture) -> str:
                pair = p.pair(capture_telemetry=capture)
                local, remote = pair.sides(1)
                handle = pair.one.make_prepped_xfer("WRITE", local, [0], remote, [0])
                moved(pair.one, handle)
                pair.one.check_xfer_state(handle)
                return type(pair.one.get_xfer_telemetry(handle)).__name__

            try:
                seen(f"{value!r} and {capture}", look)
            finally:
                del os.environ["NIXL_TELEMETRY_ENABLE"]
    return seen


def case_zero_length(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    one = pair.one
    local = one.prep_xfer_dlist("", pair.mine.table((0, 0), (64, 64), (256, 0)), "DRAM")
    remote = one.prep_xfer_dlist("two", pair.theirs.table((0, 0), (64, 64), (256, 0)), "DRAM")
    for label, indices in {"nothing": [0], "something": [0, 1, 2], "nothing twice": [0, 2]}.items():
        handle = one.make_prepped_xfer("WRITE", local, indices, remote, indices, label.encode())
        seen(label, lambda h=handle: moved(one, h))
        seen(f"{label} told", lambda: arrived(pair.two, also=one))
    seen("came", lambda: int(pair.theirs.array[64]))
    return seen


def case_after_deregistration(p: Package) -> Seen:
    """Preparing needs memory that is registered now."""
    seen, b = Seen(), p.bindings
    agent = p.agent("a")
    memory = p.memory()
    reg = agent.register_memory([(memory.address, memory.size, 0, "")], "DRAM")
    agent.deregister_memory(reg)
    seen("prepare", lambda: agent.prep_xfer_dlist("", memory.table((0, 64)), "DRAM"))
    mine = b.nixlXferDList(b.DRAM_SEG, memory.rows((0, 64)))
    seen("initialize", lambda: agent.initialize_xfer("WRITE", mine, mine, "a"))
    return seen
