"""Metadata: giving it, adding it, partial, invalid, again."""

from __future__ import annotations

from typing import Any

import numpy as np
from observe import Package, Seen, arrived, moved


def case_add(p: Package) -> Seen:
    seen = Seen()
    one, two = p.agent("one"), p.agent("two")
    metadata = two.get_agent_metadata()
    seen("type", lambda: type(metadata).__name__)
    seen("add", lambda: one.add_remote_agent(metadata))
    seen("add again", lambda: one.add_remote_agent(metadata))
    seen("bytearray", lambda: one.add_remote_agent(bytearray(metadata)))
    seen("memoryview", lambda: one.add_remote_agent(memoryview(metadata)))
    seen("itself", lambda: one.add_remote_agent(one.get_agent_metadata()))
    seen("nothing", lambda: one.add_remote_agent(b""))
    seen("noise", lambda: one.add_remote_agent(b"noise" * 20))
    seen("half", lambda: one.add_remote_agent(metadata[: len(metadata) // 2]))
    seen("text", lambda: one.add_remote_agent("noise"))
    seen("none", lambda: one.add_remote_agent(None))
    seen("number", lambda: one.add_remote_agent(3))
    seen("remove", lambda: one.remove_remote_agent("two"))
    seen("remove again", lambda: one.remove_remote_agent("two"))
    seen("remove unknown", lambda: one.remove_remote_agent("three"))
    seen("add after removal", lambda: one.add_remote_agent(metadata))
    seen("remove as bytes", lambda: one.remove_remote_agent(b"two"))
    seen("is it gone", lambda: one.check_remote_metadata("two"))
    seen("remove none", lambda: one.remove_remote_agent(None))
    seen("remove a number", lambda: one.remove_remote_agent(3))
    seen("remove itself", lambda: one.remove_remote_agent("one"))
    seen("remove no name", lambda: one.remove_remote_agent(""))
    for name in ("ä€", "n" * 400, "new\nline", "ze\0ro"):
        other = p.agent(name)
        seen(f"name {name[:3]!r}", lambda o=other: one.add_remote_agent(o.get_agent_metadata()))
    return seen


def case_check(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    one, two = p.agent("one"), p.agent("two")
    memory = p.memory()
    two.register_memory([(memory.address, 4096, 0, "")], "DRAM")
    check = one.check_remote_metadata

    def dlist(*places: tuple[int, int], mem: Any = b.DRAM_SEG, device: int = 0) -> Any:
        return b.nixlXferDList(mem, memory.rows(*places, device=device))

    seen("before", lambda: check("two"))
    one.add_remote_agent(two.get_agent_metadata())
    seen("after", lambda: check("two"))
    seen("bytes", lambda: check(b"two"))
    seen("unknown", lambda: check("three"))
    seen("itself", lambda: check("one"))
    seen("none", lambda: check(None))
    seen("inside", lambda: check("two", dlist((0, 64))))
    seen("two inside", lambda: check("two", dlist((0, 64), (4032, 64))))
    seen("beyond", lambda: check("two", dlist((4000, 200))))
    seen("one outside", lambda: check("two", dlist((0, 64), (8192, 64))))
    seen("another device", lambda: check("two", dlist((0, 64), device=1)))
    seen("another type", lambda: check("two", dlist((0, 64), mem=b.VRAM_SEG)))
    seen("empty", lambda: check("two", b.nixlXferDList(b.DRAM_SEG)))
    seen("empty of another type", lambda: check("two", b.nixlXferDList(b.FILE_SEG)))
    seen("rows", lambda: check("two", memory.rows((0, 64))))
    seen("unknown agent", lambda: check("three", dlist((0, 64))))
    one.remove_remote_agent("two")
    seen("removed", lambda: check("two"))
    return seen


def case_more_memory(p: Package) -> Seen:
    """Registered later, told later."""
    seen = Seen()
    pair = p.pair()
    more = p.memory(fill=7)
    pair.two.register_memory([(more.address, more.size, 0, "")], "DRAM")
    seen("before", lambda: pair.one.prep_xfer_dlist("two", more.table((0, 64)), "DRAM"))
    seen("add", lambda: pair.one.add_remote_agent(pair.two.get_agent_metadata()))
    seen("after", lambda: pair.one.prep_xfer_dlist("two", more.table((0, 64)), "DRAM"))
    seen("the old one", lambda: pair.one.prep_xfer_dlist("two", pair.theirs.table((0, 64)), "DRAM"))

    def read() -> int:
        local = pair.one.prep_xfer_dlist("", pair.mine.table((0, 64), (64, 64)), "DRAM")
        both = np.concatenate([more.table((0, 64)), pair.theirs.table((0, 64))])
        remote = pair.one.prep_xfer_dlist("two", both, "DRAM")
        moved(pair.one, pair.one.make_prepped_xfer("READ", local, [0, 1], remote, [0, 1]))
        return int(pair.mine.array[0]) * 10 + int(pair.mine.array[64])

    seen("both in one transfer", read)
    return seen


def case_partial(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    one, two = p.agent("one"), p.agent("two")
    first, second, third = p.memory(fill=1), p.memory(fill=2), p.memory(fill=3)

    def dlist(memory: Any) -> Any:
        return b.nixlRegDList(b.DRAM_SEG, [(memory.address, memory.size, 0, "")])

    for memory in (first, second):
        two.register_memory(dlist(memory))
    partial = two.get_partial_agent_metadata
    seen("type", lambda: type(partial(dlist(first))).__name__)
    seen("without connection, unknown", lambda: one.add_remote_agent(partial(dlist(first))))
    seen("known then", lambda: one.check_remote_metadata("two"))
    seen(
        "nothing but the connection",
        lambda: one.add_remote_agent(partial(b.nixlRegDList(b.DRAM_SEG), True)),
    )
    seen("known now", lambda: one.check_remote_metadata("two"))
    seen("memory is not", lambda: one.prep_xfer_dlist("two", first.table((0, 64)), "DRAM"))
    seen("first", lambda: one.add_remote_agent(partial(dlist(first))))
    seen("first is there", lambda: one.prep_xfer_dlist("two", first.table((0, 64)), "DRAM"))
    seen("second is not", lambda: one.prep_xfer_dlist("two", second.table((0, 64)), "DRAM"))
    seen("second with connection", lambda: one.add_remote_agent(partial(dlist(second), True)))
    seen("second is there", lambda: one.prep_xfer_dlist("two", second.table((0, 64)), "DRAM"))
    seen("first still", lambda: one.prep_xfer_dlist("two", first.table((0, 64)), "DRAM"))
    mine = p.memory()
    one.register_memory([(mine.address, mine.size, 0, "")], "DRAM")

    def read() -> list[int]:
        local = one.prep_xfer_dlist("", mine.table((0, 64), (64, 64)), "DRAM")
        both = np.concatenate([first.table((0, 64)), second.table((0, 64))])
        remote = one.prep_xfer_dlist("two", both, "DRAM")
        moved(one, one.make_prepped_xfer("READ", local, [0, 1], remote, [0, 1]))
        return [int(mine.array[0]), int(mine.array[64])]

    seen("both in one transfer", read)
    seen("not registered", lambda: partial(dlist(third)))
    part = b.nixlRegDList(b.DRAM_SEG, [(first.address, 64, 0, "")])
    seen("part of a registration", lambda: type(partial(part)).__name__)
    seen("of another type", lambda: partial(b.nixlRegDList(b.FILE_SEG, [(0, 0, 0, "")])))
    seen("rows", lambda: partial([(first.address, first.size, 0, "")]))
    seen("none", lambda: partial(None))
    seen("nothing, no connection", lambda: type(partial(b.nixlRegDList(b.DRAM_SEG))).__name__)
    seen("backend", lambda: type(partial(dlist(first), True, ["UCX"])).__name__)
    seen("unknown backend", lambda: partial(dlist(first), True, ["NOPE"]))
    seen(
        "keywords",
        lambda: type(partial(descs=dlist(first), inc_conn_info=True, backends=[])).__name__,
    )
    seen("itself", lambda: two.add_remote_agent(partial(dlist(first), True)))
    return seen


def case_partial_again(p: Package) -> Seen:
    """The same parts over and over, and memory that was registered anew."""
    seen, b = Seen(), p.bindings
    one, two = p.agent("one"), p.agent("two")
    mine = p.memory(fill=9)
    one.register_memory([(mine.address, mine.size, 0, "")], "DRAM")
    parts = [p.memory(fill=index) for index in range(3)]

    def dlist(memory: Any) -> Any:
        return b.nixlRegDList(b.DRAM_SEG, [(memory.address, memory.size, 0, "")])

    for memory in parts:
        two.register_memory(dlist(memory))
    local = one.prep_xfer_dlist("", mine.table(*[(i * 64, 64) for i in range(3)]), "DRAM")

    def read() -> list[int]:
        table = np.concatenate([memory.table((64, 64)) for memory in parts])
        remote = one.prep_xfer_dlist("two", table, "DRAM")
        moved(one, one.make_prepped_xfer("READ", local, range(3), remote, range(3)))
        return [int(mine.array[index * 64]) for index in range(3)]

    for order in ((0, 1, 2), (2, 2, 0), (1, 0, 2)):
        for index in order:
            one.add_remote_agent(two.get_partial_agent_metadata(dlist(parts[index]), True))
        seen(f"after {order}", read)
    two.deregister_memory(dlist(parts[1]))
    two.register_memory(dlist(parts[1]))
    seen(
        "registered anew",
        lambda: one.add_remote_agent(two.get_partial_agent_metadata(dlist(parts[1]), True)),
    )
    seen("read", read)
    seen("all", lambda: one.add_remote_agent(two.get_agent_metadata()))
    seen("read all", read)
    return seen


def case_connection(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    seen("known", lambda: pair.one.make_connection("two"))
    seen("again", lambda: pair.one.make_connection("two"))
    seen("bytes", lambda: pair.one.make_connection(b"two"))
    seen("itself", lambda: pair.one.make_connection("one"))
    seen("unknown", lambda: pair.one.make_connection("three"))
    seen("backend", lambda: pair.one.make_connection("two", ["UCX"]))
    seen("unknown backend", lambda: pair.one.make_connection("two", ["NOPE"]))
    return seen


def case_removed(p: Package) -> Seen:
    """What was prepared for an agent that was removed."""
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    handle = pair.one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    moved(pair.one, handle)
    pair.one.remove_remote_agent("two")
    seen("check", lambda: pair.one.check_xfer_state(handle))
    seen("notify", lambda: pair.one.send_notif("two", b"x"))
    seen("prepare", lambda: pair.one.prep_xfer_dlist("two", pair.theirs.table((0, 64)), "DRAM"))
    seen("connect", lambda: pair.one.make_connection("two"))
    seen.daring("make", lambda: pair.one.make_prepped_xfer("WRITE", local, [0], remote, [0]))
    seen.daring("post", lambda: moved(pair.one, handle))
    seen("release", lambda: pair.one.release_xfer_handle(handle))
    seen("release list", lambda: pair.one.release_dlist_handle(remote))
    return seen


def case_removed_and_added(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    pair.one.remove_remote_agent("two")
    seen("add", lambda: pair.one.add_remote_agent(pair.two.get_agent_metadata()))
    local, remote = pair.sides(4)
    handle = pair.one.make_prepped_xfer("WRITE", local, [0], remote, [0], b"again")
    seen("transfer", lambda: moved(pair.one, handle))
    seen("told", lambda: arrived(pair.two, also=pair.one))
    return seen


def case_removed_by_the_other(p: Package) -> Seen:
    """Who removes an agent does not end what that agent does."""
    seen = Seen()
    pair = p.pair()
    local, remote = pair.sides(4)
    handle = pair.one.make_prepped_xfer("WRITE", local, [0], remote, [0], b"told")
    moved(pair.one, handle)
    arrived(pair.two, also=pair.one)
    pair.two.remove_remote_agent("one")
    seen("transfer", lambda: moved(pair.one, handle))
    seen("told", lambda: arrived(pair.two, also=pair.one))
    seen("notify", lambda: pair.one.send_notif("two", b"more"))
    seen("came", lambda: arrived(pair.two, also=pair.one))
    return seen


def case_restarted(p: Package) -> Seen:
    """An agent of the same name in a new life."""
    seen = Seen()
    one = p.agent("one")
    mine, theirs = p.memory(fill=1), p.memory(fill=2)
    one.register_memory([(mine.address, mine.size, 0, "")], "DRAM")
    two = p.agent("two")
    two.register_memory([(theirs.address, theirs.size, 0, "")], "DRAM")
    one.add_remote_agent(two.get_agent_metadata())
    local = one.prep_xfer_dlist("", mine.table((0, 64)), "DRAM")
    remote = one.prep_xfer_dlist("two", theirs.table((0, 64)), "DRAM")
    moved(one, one.make_prepped_xfer("WRITE", local, [0], remote, [0]))
    del two
    import gc

    gc.collect()
    fresh = p.agent("two")
    later = p.memory(fill=3)
    fresh.register_memory([(later.address, later.size, 0, "")], "DRAM")
    seen("add", lambda: one.add_remote_agent(fresh.get_agent_metadata()))

    def read() -> int:
        far = one.prep_xfer_dlist("two", later.table((0, 64)), "DRAM")
        moved(one, one.make_prepped_xfer("READ", local, [0], far, [0]))
        return int(mine.array[0])

    seen("read", read)
    one.remove_remote_agent("two")
    seen("add after removal", lambda: one.add_remote_agent(fresh.get_agent_metadata()))
    seen("read after removal", read)
    return seen


def case_local_send(p: Package) -> Seen:
    """Without a listener's address and without etcd."""
    seen, b = Seen(), p.bindings
    one = p.agent("one")
    memory = p.memory()
    reg = one.register_memory([(memory.address, memory.size, 0, "")], "DRAM")
    seen("send", lambda: one.send_local_metadata())
    seen("fetch", lambda: one.fetch_remote_metadata("two"))
    seen("invalidate", lambda: one.invalidate_local_metadata())
    seen("partial", lambda: one.send_partial_agent_metadata(reg))
    seen("partial with label", lambda: one.send_partial_agent_metadata(reg, True, label="x"))
    seen("fetch with label", lambda: one.fetch_remote_metadata("two", label="x"))
    seen("empty partial", lambda: one.send_partial_agent_metadata(b.nixlRegDList(b.DRAM_SEG)))
    return seen
