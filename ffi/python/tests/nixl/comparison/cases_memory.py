"""Registering and deregistering memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from observe import Package, Seen


def kind(value: object) -> str:
    return type(value).__name__


def case_register(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    agent = p.agent("a")

    def rows(size: int = 256) -> list[tuple[int, int, int, str]]:
        return [(p.memory(size).address, size, 0, "")]

    seen("rows", lambda: kind(agent.register_memory(rows(), "DRAM")))
    seen("truth", lambda: bool(agent.register_memory(rows(), "DRAM")))
    seen("cpu", lambda: kind(agent.register_memory(rows(), "cpu")))
    seen("list", lambda: kind(agent.register_memory(b.nixlRegDList(b.DRAM_SEG, rows()))))
    mine = b.nixlRegDList(b.DRAM_SEG, rows())
    seen("list is what comes back", lambda: agent.register_memory(mine) is mine)
    table = np.array([p.memory().table((0, 64))[0]], dtype=np.uint64)
    seen("table", lambda: kind(agent.register_memory(table, "DRAM")))
    seen("several", lambda: agent.register_memory(rows() + rows(), "DRAM").descCount())
    seen("meta", lambda: kind(agent.register_memory([(*rows()[0][:3], "meta")], "DRAM")))
    seen("bytes meta", lambda: kind(agent.register_memory([(*rows()[0][:3], b"m")], "DRAM")))
    seen("device", lambda: kind(agent.register_memory([(*rows()[0][:2], 7, "")], "DRAM")))
    seen("without type", lambda: agent.register_memory(rows()))
    seen("bad type", lambda: agent.register_memory(rows(), "D-RAM"))
    seen("type in lower case", lambda: agent.register_memory(rows(), "dram"))
    seen("none of them", lambda: agent.register_memory([], "DRAM"))
    seen("empty list", lambda: kind(agent.register_memory(b.nixlRegDList(b.DRAM_SEG))))
    seen("none", lambda: agent.register_memory(None, "DRAM"))
    seen("three columns of rows", lambda: agent.register_memory([(1, 2, 3)], "DRAM"))
    seen("transfer list", lambda: agent.register_memory(b.nixlXferDList(b.DRAM_SEG, [(1, 2, 3)])))
    seen("file", lambda: agent.register_memory([(0, 64, 3, "/nowhere")], "FILE"))
    seen("block", lambda: agent.register_memory([(0, 64, 3, "")], "BLOCK"))
    seen("object", lambda: agent.register_memory([(0, 64, 3, "k")], "OBJ"))
    seen("backend", lambda: kind(agent.register_memory(rows(), "DRAM", ["UCX"])))
    seen(
        "keywords",
        lambda: kind(agent.register_memory(reg_list=rows(), mem_type="DRAM", backends=["UCX"])),
    )
    seen("unknown backend", lambda: agent.register_memory(rows(), "DRAM", ["NOPE"]))
    seen("one known backend", lambda: agent.register_memory(rows(), "DRAM", ["NOPE", "UCX"]))
    seen("backend as text", lambda: agent.register_memory(rows(), "DRAM", "UCX"))
    return seen


def case_register_vram(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a")
    memory = p.memory()
    row = [(memory.address, memory.size, 0, "")]
    seen("vram", lambda: agent.register_memory(row, "VRAM"))
    seen("cuda", lambda: agent.register_memory(row, "cuda"))
    seen("prepare", lambda: agent.prep_xfer_dlist("", memory.table((0, 64)), "VRAM"))
    return seen


def case_register_places(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a")
    memory = p.memory(1 << 16)
    at = memory.address
    seen("once", lambda: kind(agent.register_memory([(at, 4096, 0, "")], "DRAM")))
    seen("the same again", lambda: kind(agent.register_memory([(at, 4096, 0, "")], "DRAM")))
    seen("inside", lambda: kind(agent.register_memory([(at + 64, 64, 0, "")], "DRAM")))
    seen("across", lambda: kind(agent.register_memory([(at + 2048, 4096, 0, "")], "DRAM")))
    seen("adjacent", lambda: kind(agent.register_memory([(at + 6144, 4096, 0, "")], "DRAM")))
    seen("another device", lambda: kind(agent.register_memory([(at, 4096, 1, "")], "DRAM")))
    two = [(at + 20000, 64, 0, ""), (at + 20000, 64, 0, "")]
    seen("twice in one list", lambda: kind(agent.register_memory(two, "DRAM")))
    seen("nothing of it", lambda: kind(agent.register_memory([(at + 30000, 0, 0, "")], "DRAM")))
    seen("a byte", lambda: kind(agent.register_memory([(at + 30001, 1, 0, "")], "DRAM")))
    return seen


def case_deregister(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    agent = p.agent("a")
    memory = p.memory(1 << 16)
    at = memory.address
    first = agent.register_memory([(at, 4096, 0, "m")], "DRAM")
    second = agent.register_memory([(at + 8192, 64, 0, ""), (at + 12288, 64, 0, "")], "DRAM")
    seen("it", lambda: agent.deregister_memory(first))
    seen("it again", lambda: agent.deregister_memory(first))

    def dlist(*rows: tuple[Any, ...]) -> Any:
        return b.nixlRegDList(b.DRAM_SEG, list(rows))

    seen("never registered", lambda: agent.deregister_memory(dlist((at + 40000, 64, 0, ""))))
    seen("shorter", lambda: agent.deregister_memory(dlist((at + 8192, 32, 0, ""))))
    seen("longer", lambda: agent.deregister_memory(dlist((at + 8192, 128, 0, ""))))
    seen("another device", lambda: agent.deregister_memory(dlist((at + 8192, 64, 1, ""))))
    seen("rows", lambda: agent.deregister_memory([(at + 8192, 64, 0, "")]))
    seen("table", lambda: agent.deregister_memory(memory.table((8192, 64))))
    seen("none", lambda: agent.deregister_memory(None))
    seen("empty", lambda: agent.deregister_memory(b.nixlRegDList(b.DRAM_SEG)))
    seen(
        "one good, one bad",
        lambda: agent.deregister_memory(dlist((at + 8192, 64, 0, ""), (at + 40000, 64, 0, ""))),
    )
    seen(
        "is the good one still there",
        lambda: agent.deregister_memory(dlist((at + 8192, 64, 0, ""))),
    )
    seen("another meta", lambda: agent.deregister_memory(dlist((at + 12288, 64, 0, "other"))))
    seen("both", lambda: agent.deregister_memory(second))
    third = agent.register_memory([(at, 64, 0, "")], "DRAM", ["UCX"])
    seen("backend", lambda: agent.deregister_memory(third, ["UCX"]))
    fourth = agent.register_memory([(at, 64, 0, "")], "DRAM")
    seen("unknown backend", lambda: agent.deregister_memory(fourth, ["NOPE"]))
    seen(
        "another type",
        lambda: agent.deregister_memory(b.nixlRegDList(b.FILE_SEG, [(at, 64, 0, "")])),
    )
    seen("keywords", lambda: agent.deregister_memory(dereg_list=fourth, backends=[]))
    seen("register again", lambda: kind(agent.register_memory(fourth)))
    return seen


def case_deregister_twins(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a")
    memory = p.memory()
    row = [(memory.address, 4096, 0, "")]
    first = agent.register_memory(row, "DRAM")
    second = agent.register_memory(row, "DRAM")
    seen("one of two", lambda: agent.deregister_memory(first))
    seen("still usable", lambda: agent.prep_xfer_dlist("", memory.table((0, 64)), "DRAM"))
    seen("the other", lambda: agent.deregister_memory(second))
    seen("no longer usable", lambda: agent.prep_xfer_dlist("", memory.table((0, 64)), "DRAM"))
    seen("once more", lambda: agent.deregister_memory(second))
    return seen


def case_query_memory(p: Package) -> Seen:
    seen = Seen()
    agent = p.agent("a")
    memory = p.memory()
    row = [(memory.address, 4096, 0, "")]
    seen("ucx", lambda: agent.query_memory(row, "UCX", "DRAM"))
    seen("unknown backend", lambda: agent.query_memory(row, "NOPE", "DRAM"))
    seen("bad type", lambda: agent.query_memory(row, "UCX", "D-RAM"))
    return seen


def case_mem_view(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    agent = p.agent("a")
    memory = p.memory()
    agent.register_memory([(memory.address, 4096, 0, "")], "DRAM")
    mine = b.nixlXferDList(b.DRAM_SEG, memory.rows((0, 64)))
    seen("local", lambda: agent.prep_mem_view(mine))
    seen(
        "remote",
        lambda: agent.prep_mem_view(b.nixlRemoteDList(b.DRAM_SEG, [(memory.address, 64, 0, "a")])),
    )
    seen("rows", lambda: agent.prep_mem_view(memory.rows((0, 64))))
    return seen
