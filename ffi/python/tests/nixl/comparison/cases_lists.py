"""Preparing lists of descriptors for one side."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases_descriptors import shapes
from observe import Package, Seen


def case_prepare_names(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    mine, theirs = pair.mine.table((0, 64)), pair.theirs.table((0, 64))
    names: dict[str, tuple[Any, Any]] = {
        "empty": ("", mine),
        "initiator": ("NIXL_INIT_AGENT", mine),
        "self": ("one", mine),
        "self as bytes": (b"one", mine),
        "remote": ("two", theirs),
        "remote as bytes": (b"two", theirs),
        "empty bytes": (b"", mine),
        "unknown": ("three", theirs),
        "none": (None, mine),
        "number": (3, mine),
        "remote's on the local side": ("", theirs),
        "mine on the remote side": ("two", mine),
    }
    for label, (name, table) in names.items():
        seen(label, lambda n=name, t=table: pair.one.prep_xfer_dlist(n, t, "DRAM"))
    return seen


def case_prepare_forms(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    agent = p.agent("a")
    memory = p.memory()
    agent.register_memory([(memory.address, memory.size, 0, "")], "DRAM")
    rows = memory.rows((0, 64), (128, 64))
    table = memory.table((0, 64), (128, 64))

    def prep(value: Any, *more: Any) -> Any:
        return agent.prep_xfer_dlist("", value, *more)

    seen("rows", lambda: prep(rows, "DRAM"))
    seen("rows cpu", lambda: prep(rows, "cpu"))
    seen("rows without type", lambda: prep(rows))
    seen("table without type", lambda: prep(table))
    seen("bad type", lambda: prep(rows, "D-RAM"))
    seen("bad type for table", lambda: prep(table, "D-RAM"))
    seen("list", lambda: prep(b.nixlXferDList(b.DRAM_SEG, rows)))
    seen("list, another type said", lambda: prep(b.nixlXferDList(b.DRAM_SEG, rows), "VRAM"))
    seen("registration list", lambda: prep(b.nixlRegDList(b.DRAM_SEG, [(*rows[0], "")])))
    seen("none of them", lambda: prep([], "DRAM"))
    seen("empty table", lambda: prep(table[:0], "DRAM"))
    seen("empty list", lambda: prep(b.nixlXferDList(b.DRAM_SEG)))
    seen("none", lambda: prep(None, "DRAM"))
    seen("backend", lambda: prep(table, "DRAM", ["UCX"]))
    seen("unknown backend", lambda: prep(table, "DRAM", ["NOPE"]))
    seen(
        "keywords",
        lambda: agent.prep_xfer_dlist(agent_name="", xfer_list=table, mem_type="DRAM", backends=[]),
    )
    place = np.array([memory.address, 0, 0], dtype=np.uint64)
    for label, shape in shapes().items():
        if shape.dtype not in (np.uint64, np.int64) or shape.ndim != 2 or shape.shape[1] != 3:
            seen(f"shape {label}", lambda s=shape: prep(s, "DRAM"))
    for label, layout in {
        "int64": table.astype(np.int64),
        "big endian": table.astype(">u8"),
        "fortran": np.asfortranarray(table),
        "every other": np.repeat(table, 2, axis=0)[::2],
        "columns of more": np.hstack([table, table])[:, :3],
        "reversed": table[::-1],
    }.items():
        seen(f"layout {label}", lambda v=layout: prep(v, "DRAM"))
    del place
    return seen


def case_prepare_strided(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    at = pair.mine.address

    def prep(*rows: tuple[int, ...], dtype: Any = np.uint64) -> Any:
        return pair.one.prep_xfer_dlist("", np.array(rows, dtype=dtype), "DRAM")

    def count(handle: Any, size: int) -> int:
        """How many descriptors there are: the largest index that may be used, plus 1."""
        far = pair.one.prep_xfer_dlist(
            "two", pair.theirs.table(*[(i * size, size) for i in range(16)]), "DRAM"
        )
        for index in range(16):
            try:
                pair.one.make_prepped_xfer("WRITE", handle, [index], far, [0])
            except Exception:
                return index
        return 16

    seen("one row", lambda: count(prep((at, 64, 0, 128, 4)), 64))
    seen("two rows", lambda: count(prep((at, 64, 0, 128, 4), (at + 4096, 64, 0, 64, 2)), 64))
    seen("int64", lambda: count(prep((at, 64, 0, 128, 4), dtype=np.int64), 64))
    seen("int32", lambda: prep((1, 64, 0, 128, 4), dtype=np.int32))
    seen("float", lambda: prep((1, 64, 0, 128, 4), dtype=np.float64))
    seen("count 1", lambda: count(prep((at, 64, 0, 128, 1)), 64))
    seen("count 0", lambda: prep((at, 64, 0, 128, 0)))
    seen("stride 0", lambda: count(prep((at, 64, 0, 0, 3)), 64))
    seen("stride below length", lambda: count(prep((at, 64, 0, 32, 3)), 64))
    seen("last is outside", lambda: prep((at, 64, 0, 32768, 3)))
    seen("last touches the end", lambda: count(prep((at, 64, 0, 65472, 2)), 64))
    seen("wraps around", lambda: prep((at, 64, 0, 2**63, 3)))
    seen("wrong device", lambda: prep((at, 64, 1, 128, 4)))
    seen("no rows", lambda: pair.one.prep_xfer_dlist("", np.zeros((0, 5), np.uint64), "DRAM"))
    five = np.asfortranarray(np.array([(at, 64, 0, 128, 4)] * 2, dtype=np.uint64))
    seen("fortran", lambda: pair.one.prep_xfer_dlist("", five, "DRAM"))
    seen("without type", lambda: pair.one.prep_xfer_dlist("", np.ascontiguousarray(five)))

    def whole() -> list[int]:
        local = prep((at, 64, 0, 256, 4))
        far = np.array([(pair.theirs.address + 64, 64, 0, 512, 4)], dtype=np.uint64)
        remote = pair.one.prep_xfer_dlist("two", far, "DRAM")
        from observe import moved

        handle = pair.one.make_prepped_xfer("WRITE", local, [0, 1, 2, 3], remote, [3, 2, 1, 0])
        for index in range(4):
            pair.mine.array[index * 256] = 10 + index
        moved(pair.one, handle)
        return [int(pair.theirs.array[64 + index * 512]) for index in range(4)]

    seen("the bytes", whole)
    return seen


def case_prepare_places(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a")
    memory = p.memory(1 << 16)
    at = memory.address
    rows = [(at, 4096, 0, ""), (at + 4096, 4096, 0, ""), (at + 16384, 4096, 5, "")]
    agent.register_memory(rows, "DRAM")
    for side in ("", "a"):

        def prep(*places: tuple[int, int, int], side: str = side) -> Any:
            table = np.array([(at + o, n, d) for o, n, d in places], dtype=np.uint64)
            return agent.prep_xfer_dlist(side, table, "DRAM")

        name = side or "local"
        seen(f"{name} whole", lambda f=prep: f((0, 4096, 0)))
        seen(f"{name} second", lambda f=prep: f((4096, 4096, 0)))
        seen(f"{name} across two", lambda f=prep: f((4000, 200, 0)))
        seen(f"{name} beyond the end", lambda f=prep: f((8000, 200, 0)))
        seen(f"{name} between", lambda f=prep: f((10000, 64, 0)))
        seen(f"{name} before", lambda f=prep: f((-64, 64, 0)) if False else f((0, 64, 0)))
        seen(f"{name} device", lambda f=prep: f((16384, 64, 5)))
        seen(f"{name} wrong device", lambda f=prep: f((16384, 64, 0)))
        seen(f"{name} wrong device of the first", lambda f=prep: f((0, 64, 5)))
        seen(f"{name} one of two is bad", lambda f=prep: f((0, 64, 0), (10000, 64, 0)))
        seen(f"{name} nothing", lambda f=prep: f((64, 0, 0)))
        seen(f"{name} nothing at the end", lambda f=prep: f((8192, 0, 0)))
        seen(f"{name} nothing outside", lambda f=prep: f((10000, 0, 0)))
        seen(f"{name} too long", lambda f=prep: f((0, 2**63, 0)))
        seen(f"{name} wraps around", lambda f=prep: f((64, 2**64 - 64, 0)))
        seen(f"{name} twice the same", lambda f=prep: f((0, 64, 0), (0, 64, 0)))
    for mem in ("VRAM", "FILE", "OBJ", "BLOCK"):
        seen(mem, lambda m=mem: agent.prep_xfer_dlist("", memory.table((0, 64)), m))
    return seen


def case_prepare_nested(p: Package) -> Seen:
    """A small registration inside a large one must not hide the large one."""
    seen = Seen()
    agent = p.agent("a")
    memory = p.memory(1 << 16)
    at = memory.address
    agent.register_memory([(at, 1 << 16, 0, "")], "DRAM")
    agent.register_memory([(at + 4096, 64, 0, "")], "DRAM")
    agent.register_memory([(at + 2048, 8192, 0, "")], "DRAM")
    for offset, size in (
        (0, 64),
        (4096, 64),
        (4096, 128),
        (4100, 32),
        (9000, 64),
        (9000, 8192),
        (3000, 2000),
        (40000, 64),
        (0, 65536),
    ):
        seen(
            f"{size} at {offset}",
            lambda o=offset, n=size: agent.prep_xfer_dlist("", memory.table((o, n)), "DRAM"),
        )
    return seen


def case_handles(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides()
    seen("type", lambda: type(local).__name__)
    seen("repr", lambda: repr(local).split("(")[0] + repr(local).split(",")[1])
    seen("truth", lambda: bool(local))
    seen("hashable", lambda: type(hash(local)).__name__)
    seen("equal to itself", lambda: local == local)
    seen("equal to another", lambda: local == remote)
    seen("attributes of its own", lambda: setattr(local, "x", 1))
    seen("release", lambda: pair.one.release_dlist_handle(local))
    seen("release again", lambda: pair.one.release_dlist_handle(local))
    seen("release by itself", remote.release)
    seen("release by itself again", remote.release)
    seen("repr of released", lambda: repr(local).split(",")[1])
    seen("release none", lambda: pair.one.release_dlist_handle(None))
    seen("release a number", lambda: pair.one.release_dlist_handle(0))
    seen("release text", lambda: pair.one.release_dlist_handle("a"))
    fresh, _ = pair.sides()
    seen("release by another agent", lambda: pair.two.release_dlist_handle(fresh))
    return seen
