"""Metadata over an agent's listener."""

from __future__ import annotations

import socket
from typing import Any

from observe import Package, Seen, until

LOCAL = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((LOCAL, 0))
        return int(taken.getsockname()[1])


def listening(p: Package, name: str) -> tuple[Any, int]:
    port = free_port()
    return p.agent(name, enable_listen_thread=True, listen_port=port), port


def case_fetch(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    two, port = listening(p, "two")
    memory = p.memory()
    two.register_memory([(memory.address, memory.size, 0, "")], "DRAM")
    one, _ = listening(p, "one")
    dlist = b.nixlXferDList(b.DRAM_SEG, memory.rows((0, 64)))
    seen("fetch", lambda: one.fetch_remote_metadata("two", LOCAL, port))
    seen("comes", lambda: until(lambda: one.check_remote_metadata("two")))
    seen("with memory", lambda: until(lambda: one.check_remote_metadata("two", dlist)))
    seen("prepare", lambda: one.prep_xfer_dlist("two", memory.table((0, 64)), "DRAM"))
    seen("not the other way", lambda: two.check_remote_metadata("one"))
    seen("again", lambda: one.fetch_remote_metadata("two", LOCAL, port))
    seen("still", lambda: one.check_remote_metadata("two"))
    more = p.memory()
    two.register_memory([(more.address, more.size, 0, "")], "DRAM")
    later = b.nixlXferDList(b.DRAM_SEG, more.rows((0, 64)))
    seen("more", lambda: one.fetch_remote_metadata("two", LOCAL, port))
    seen("more comes", lambda: until(lambda: one.check_remote_metadata("two", later)))
    return seen


def case_send(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    two, port = listening(p, "two")
    one, _ = listening(p, "one")
    memory, other = p.memory(), p.memory()
    reg = one.register_memory([(memory.address, memory.size, 0, "")], "DRAM")
    seen("send", lambda: one.send_local_metadata(LOCAL, port))
    seen("comes", lambda: until(lambda: two.check_remote_metadata("one")))
    seen("notify", lambda: two.send_notif("one", b"x"))
    one.register_memory([(other.address, other.size, 0, "")], "DRAM")
    seen("invalidate", lambda: one.invalidate_local_metadata(LOCAL, port))
    seen("gone", lambda: until(lambda: not two.check_remote_metadata("one")))
    seen("part", lambda: one.send_partial_agent_metadata(reg, True, [], LOCAL, port))
    mine = b.nixlXferDList(b.DRAM_SEG, memory.rows((0, 64)))
    rest = b.nixlXferDList(b.DRAM_SEG, other.rows((0, 64)))
    seen("part comes", lambda: until(lambda: two.check_remote_metadata("one", mine)))
    seen("not the rest", lambda: two.check_remote_metadata("one", rest))
    return seen


def case_without_listener(p: Package) -> Seen:
    """An agent that does not listen itself."""
    seen = Seen()
    two, port = listening(p, "two")
    one = p.agent("one")
    seen("fetch", lambda: one.fetch_remote_metadata("two", LOCAL, port))
    seen("send", lambda: one.send_local_metadata(LOCAL, port))
    del two
    return seen


def case_port_taken(p: Package) -> Seen:
    seen = Seen()
    with socket.socket() as taken:
        taken.bind((LOCAL, 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        seen("agent", lambda: p.agent("a", enable_listen_thread=True, listen_port=port).name)
    return seen


def case_port_zero(p: Package) -> Seen:
    seen = Seen()
    seen("agent", lambda: p.agent("a", enable_listen_thread=True, listen_port=0).name)
    return seen


def case_arguments(p: Package) -> Seen:
    seen = Seen()
    two, port = listening(p, "two")
    one, _ = listening(p, "one")
    seen("number as agent", lambda: one.fetch_remote_metadata(3, LOCAL, port))
    seen("text as port", lambda: one.fetch_remote_metadata("two", LOCAL, "x"))
    seen("number as address", lambda: one.fetch_remote_metadata("two", 3, port))
    seen("port too large", lambda: one.fetch_remote_metadata("two", LOCAL, 2**40))
    seen(
        "keywords",
        lambda: one.fetch_remote_metadata(remote_agent="two", ip_addr=LOCAL, port=port, label=""),
    )
    seen("send keywords", lambda: one.send_local_metadata(ip_addr=LOCAL, port=port))
    seen("invalidate keywords", lambda: one.invalidate_local_metadata(ip_addr=LOCAL, port=port))
    del two
    return seen


def case_nobody_there(p: Package) -> Seen:
    seen = Seen()
    one, _ = listening(p, "one")
    port = free_port()
    seen("fetch", lambda: one.fetch_remote_metadata("two", LOCAL, port))
    seen("send", lambda: one.send_local_metadata(LOCAL, port))
    seen("invalidate", lambda: one.invalidate_local_metadata(LOCAL, port))
    seen("known", lambda: one.check_remote_metadata("two"))
    return seen
