"""Notifications that are sent by themselves."""

from __future__ import annotations

from typing import Any

from observe import Package, Seen, arrived, until


def case_send(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    one, two = pair.one, pair.two
    messages: dict[str, Any] = {
        "bytes": b"abc",
        "text": "abc",
        "unicode": "ä",
        "binary": b"\xff\x00\xfe",
        "empty": b"",
        "empty text": "",
    }
    for label, message in messages.items():
        seen(label, lambda m=message: one.send_notif("two", m))
        seen(f"{label} came", lambda: arrived(two, also=one))
    for label, message in {
        "none": None,
        "number": 3,
        "list": [b"a"],
        "memoryview": memoryview(b"a"),
    }.items():
        seen(label, lambda m=message: one.send_notif("two", m))
    seen("bytearray", lambda: one.send_notif("two", bytearray(b"ba")))
    seen("bytearray came", lambda: arrived(two, also=one))
    seen("1 MiB", lambda: one.send_notif("two", b"m" * (1 << 20)))
    seen("1 MiB came", lambda: [len(m) for m in arrived(two, also=one)["one"]])
    seen("to oneself", lambda: one.send_notif("one", b"me"))
    seen("to oneself came", lambda: arrived(one))
    seen("unknown agent", lambda: one.send_notif("three", b"x"))
    seen("agent as bytes", lambda: one.send_notif(b"two", b"x"))
    seen("agent as bytes came", lambda: arrived(two, also=one))
    seen("no agent", lambda: one.send_notif("", b"x"))
    seen("none as agent", lambda: one.send_notif(None, b"x"))
    seen("backend", lambda: one.send_notif("two", b"x", "UCX"))
    seen("backend came", lambda: arrived(two, also=one))
    seen("unknown backend", lambda: one.send_notif("two", b"x", "NOPE"))
    seen("keywords", lambda: one.send_notif(remote_agent_name="two", notif_msg=b"x", backend=None))
    seen("keywords came", lambda: arrived(two, also=one))
    return seen


def case_get(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    one, two = pair.one, pair.two
    seen("none", two.get_new_notifs)
    seen("none of a backend", lambda: two.get_new_notifs(["UCX"]))
    seen("unknown backend", lambda: two.get_new_notifs(["NOPE"]))
    seen("keyword", lambda: two.get_new_notifs(backends=["UCX"]))
    for index in range(5):
        one.send_notif("two", f"{index}".encode())
    seen("in order", lambda: arrived(two, 5, one))
    seen("then none", two.get_new_notifs)
    seen("a new dict each time", lambda: two.get_new_notifs() is two.get_new_notifs())
    return seen


def case_senders(p: Package) -> Seen:
    """Of agents that the receiver has not added."""
    seen = Seen()
    hub = p.agent("hub")
    for name in ("x", "ä" * 40, "y" * 300, "new\nline"):
        agent = p.agent(name)
        agent.add_remote_agent(hub.get_agent_metadata())
        agent.send_notif("hub", b"hello")
        seen(f"from {name[:3]}", lambda a=agent: arrived(hub, also=a))
    return seen


def case_update(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    one, two = pair.one, pair.two
    seen("none", two.update_notifs)
    seen("is the attribute", lambda: two.update_notifs() is two.notifs)
    one.send_notif("two", b"a")
    seen("one", lambda: until(lambda: (one.get_new_notifs(), two.update_notifs())[1]))
    one.send_notif("two", b"b")
    seen(
        "two",
        lambda: until(
            lambda: (one.get_new_notifs(), sum(map(len, two.update_notifs().values())) == 2)[1]
        ),
    )
    seen("all", lambda: two.notifs)
    seen("apart from the new ones", two.get_new_notifs)
    seen("still", lambda: two.notifs)
    return seen


def case_remote_done(p: Package) -> Seen:
    seen = Seen()
    pair = p.pair()
    one, two = pair.one, pair.two
    done = two.check_remote_xfer_done
    seen("nothing", lambda: done("one", b"a"))
    one.send_notif("two", b"abc")
    one.send_notif("two", b"abd")
    seen("prefix", lambda: until(lambda: (one.get_new_notifs(), done("one", b"ab"))[1]))
    seen("prefix of the next", lambda: until(lambda: (one.get_new_notifs(), done("one", b"ab"))[1]))
    seen("gone", lambda: done("one", b"ab"))
    seen("left", lambda: two.notifs)
    for message in (b"xyz", b"tag", b"last"):
        one.send_notif("two", message)
    seen("end", lambda: until(lambda: (one.get_new_notifs(), done("one", b"last"))[1]))
    seen("left after that", lambda: two.notifs)
    seen("inside counts", lambda: done("one", b"yz"))
    seen("inside, not as prefix", lambda: done("one", b"yz", tag_is_prefix=False))
    seen("left after inside", lambda: two.notifs)
    seen("as text", lambda: done("one", "tag"))
    seen("left at last", lambda: two.notifs)
    one.send_notif("two", b"something")
    seen("empty tag", lambda: until(lambda: (one.get_new_notifs(), done("one", b""))[1]))
    seen("unknown agent", lambda: done("three", b"a"))
    seen("agent as bytes", lambda: done(b"one", b"a"))
    seen("unknown backend", lambda: done("one", b"a", ["NOPE"]))
    seen(
        "keywords",
        lambda: done(remote_agent_name="one", lookup_tag=b"a", backends=[], tag_is_prefix=True),
    )
    return seen
