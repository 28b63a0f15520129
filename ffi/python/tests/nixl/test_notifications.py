"""Notifications: their order, their size, their senders, and who may not be believed."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Callable

import pytest
from nixl_agents import Agents, Pair, Worker, arrived, moved, until

import kvx

Pairs = Callable[..., Pair]


def test_a_senders_notifications_keep_their_order(make_pair: Pairs) -> None:
    pair = make_pair()
    messages = [f"{index}".encode() for index in range(2000)]
    for message in messages:
        pair.one.send_notif("two", message)
    assert arrived(pair.two, len(messages)) == {"one": messages}


def test_those_of_transfers_come_in_the_order_of_their_ends(make_pair: Pairs) -> None:
    pair = make_pair()
    local, remote = pair.sides()
    handle = pair.one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    messages = []
    for index in range(200):
        message = f"transfer {index}".encode()
        moved(pair.one, handle, message)
        pair.one.send_notif("two", f"alone {index}")
        messages += [message, f"alone {index}".encode()]
    assert arrived(pair.two, len(messages)) == {"one": messages}


def test_the_data_is_there_before_the_notification(make_pair: Pairs) -> None:
    pair = make_pair(8 << 20)
    handle = pair.whole(notif=b"all")
    for value in range(20):
        pair.mine.array[:] = 100 + value
        pair.one.transfer(handle)
        assert arrived(pair.two) == {"one": [b"all"]}
        assert (pair.theirs.array == 100 + value).all()
        until(lambda: pair.one.check_xfer_state(handle) == "DONE")


def test_large_notifications_arrive_whole(make_pair: Pairs) -> None:
    pair = make_pair()
    messages = [os.urandom(1 << 20) for _ in range(20)]
    for message in messages:
        pair.one.send_notif("two", message)
    assert arrived(pair.two, 20) == {"one": messages}


@pytest.mark.parametrize("alone", [True, False])
def test_a_large_notification_may_be_the_first_thing_said(
    agents: Agents, worker: Callable[..., Worker], alone: bool
) -> None:
    """More than may be out to an agent that has not answered yet: it is waited for."""
    two, one = worker(), agents("one")
    two.agent("two")
    _, address = two("memory", size=4096)
    metadata = two.metadata()
    two.stop()
    mine = agents.memory(one)
    one.add_remote_agent(metadata)
    answers = threading.Timer(0.3, two.go_on)
    answers.start()
    message = "m" * (4 << 20)
    if alone:
        one.send_notif("two", message)
    else:
        local = one.get_xfer_descs([(mine.address, 64, 0)], "DRAM")
        remote = one.get_xfer_descs([(address, 64, 0)], "DRAM")
        moved(one, one.initialize_xfer("WRITE", local, remote, "two", message))
    answers.join()
    assert two("notifs", count=1) == {"one": [message]}


def test_what_nobody_takes_is_bounded_and_said(make_pair: Pairs) -> None:
    pair = make_pair()
    refused = pair.agents.nixl._bindings.nixlBackendError
    sent = sum(1 for _ in range(1000) if sends(pair.one, bytes(1 << 20)))
    assert 20 <= sent < 1000
    with pytest.raises(refused):
        pair.one.send_notif("two", bytes(1 << 20))
    assert len(arrived(pair.two, sent)["one"]) == sent
    # Its place is given back when it is taken.
    until(lambda: sends(pair.one, b"again"), "the next notification")


def sends(agent: Any, message: bytes) -> bool:
    try:
        agent.send_notif("two", message)
    except Exception:
        return False
    return True


def test_senders_that_were_never_added_are_known_by_name(agents: Agents) -> None:
    hub = agents("hub")
    names = ["plain", "ä€😀", "x" * 1000, "new\nline", "ze\0ro", " "]
    for name in names:
        agent = agents(name)
        agent.add_remote_agent(hub.get_agent_metadata())
        agent.send_notif("hub", name.encode())
    got = arrived(hub, len(names))
    assert got == {name: [name.encode()] for name in names}


def test_several_agents_of_a_process_hear_their_own(agents: Agents) -> None:
    several = [agents(f"agent-{index}") for index in range(5)]
    for agent in several:
        for other in several:
            if other is not agent:
                agent.add_remote_agent(other.get_agent_metadata())
    for agent in several:
        for other in several:
            agent.send_notif(other.name, f"{agent.name} to {other.name}")
    for agent in several:
        wanted = {other.name: [f"{other.name} to {agent.name}".encode()] for other in several}
        assert arrived(agent, len(several)) == wanted


def test_an_agent_tells_itself(agents: Agents) -> None:
    agent = agents("one")
    agent.send_notif("one", b"")
    agent.send_notif("one", b"me")
    assert arrived(agent, 2) == {"one": [b"", b"me"]}


def test_who_calls_itself_by_anothers_name_is_not_believed(agents: Agents) -> None:
    from kvx.dropin.nixl.letters import heading

    hub, friend = agents("hub"), agents("friend")
    hub.add_remote_agent(friend.get_agent_metadata())
    friend.add_remote_agent(hub.get_agent_metadata())
    impostor = agents("impostor")
    impostor.add_remote_agent(hub.get_agent_metadata())
    peer = impostor.agent._parts.remotes.get("hub").peer
    for said in (heading("friend") + b"false", heading("hub") + b"false", b"", b"no letter"):
        peer.notify(said).wait(30)
    friend.send_notif("hub", b"true")
    peer.notify(heading("impostor") + b"mine").wait(30)
    assert arrived(hub, 2) == {"friend": [b"true"], "impostor": [b"mine"]}


def test_who_calls_itself_by_anothers_name_forges_no_lines_of_the_log(
    agents: Agents, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvx.dropin.nixl.letters import heading

    long = "friend\n2026 hub: all is well\n" + "x" * (1 << 20)
    hub, friend = agents("hub"), agents(long)
    hub.add_remote_agent(friend.get_agent_metadata())
    impostor = agents("impostor")
    impostor.add_remote_agent(hub.get_agent_metadata())
    impostor.make_connection("hub")
    peer = impostor.agent._parts.remotes.get("hub").peer
    monkeypatch.setattr(logging.getLogger("nixl"), "propagate", True)
    caplog.set_level("WARNING", "nixl.kvx")
    peer.notify(heading(long) + b"false").wait(30)
    assert hub.get_new_notifs() == {}
    (line,) = {line for line in caplog.messages if "another agent" in line}
    assert "friend" in line
    assert "\n" not in line
    assert len(line) < 1000


def test_what_was_taken_is_not_lost_to_an_error_behind_it(
    make_pair: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair()
    for message in (b"first", b"second", b"third"):
        pair.one.send_notif("two", message)
    engine = pair.two.agent._parts.engine
    until(lambda: engine.waiting_notifications == 3)
    inbox = pair.two.agent._parts.inbox
    poll, fails = inbox._poll, iter((False, True, True, False, False, False))

    def sometimes() -> Any:
        if next(fails):
            raise kvx.OutOfMemoryError("no memory for the second")
        return poll()

    monkeypatch.setattr(inbox, "_poll", sometimes)
    assert pair.two.get_new_notifs() == {"one": [b"first"]}
    with pytest.raises(pair.agents.nixl._bindings.nixlBackendError):
        pair.two.get_new_notifs()
    assert pair.two.get_new_notifs() == {"one": [b"second", b"third"]}


def test_an_engine_that_is_no_agent_is_not_heard(agents: Agents) -> None:
    hub = agents("hub")
    from kvx.dropin.nixl.envelope import Envelope

    blob = Envelope.decode(hub.get_agent_metadata()).engine
    with kvx.Engine("stranger", log="kvx=error") as stranger:
        stranger.add_peer(blob).notify(b"KVXA\xff\xff\xff\xffxx").wait(30)
        until(lambda: hub.agent._parts.engine.waiting_notifications == 1)
        assert hub.get_new_notifs() == {}


def test_each_notification_is_taken_once_by_many_threads(make_pair: Pairs) -> None:
    pair = make_pair()
    count, senders = 500, 4
    seen: list[list[bytes]] = [[] for _ in range(3)]
    done = threading.Event()

    def send(sender: int) -> None:
        for index in range(count):
            pair.one.send_notif("two", f"{sender}:{index}")

    def take(into: list[bytes]) -> None:
        while not done.is_set():
            for messages in pair.two.get_new_notifs().values():
                into.extend(messages)

    takers = [threading.Thread(target=take, args=(into,)) for into in seen]
    sending = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
    for thread in takers + sending:
        thread.start()
    for thread in sending:
        thread.join()
    until(lambda: sum(map(len, seen)) >= count * senders, "the last notification")
    done.set()
    for thread in takers:
        thread.join()
    every = [message for into in seen for message in into]
    wanted = {f"{s}:{i}".encode() for s in range(senders) for i in range(count)}
    assert len(every) == len(wanted)
    assert set(every) == wanted


def test_vllms_prefill_side_hears_heartbeats_of_a_process_it_never_added(
    agents: Agents, worker: Callable[..., Worker]
) -> None:
    prefill, decode = agents("prefill"), worker()
    decode.agent("decode")
    decode("add", metadata=prefill.get_agent_metadata().hex())
    for index in range(5):
        decode("notify", agent="prefill", message=f"HB:req-{index}")
    assert arrived(prefill, 5) == {"decode": [f"HB:req-{i}".encode() for i in range(5)]}
    with pytest.raises(agents.nixl._bindings.nixlNotFoundError):
        prefill.send_notif("decode", b"unknown")
