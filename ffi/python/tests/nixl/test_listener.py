"""Metadata over listeners, and who may not have it."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
from nixl_agents import Agents, Worker, arrived, moved, until

import kvx
from kvx.dropin.nixl import settings

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")

HERE = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        return int(taken.getsockname()[1])


def listening(agents: Agents, name: str) -> tuple[Any, int]:
    port = free_port()
    return agents(name, enable_listen_thread=True, listen_port=port), port


def test_metadata_is_fetched_from_another_process(
    agents: Agents, worker: Callable[..., Worker]
) -> None:
    port, two = free_port(), worker()
    two.agent("two", enable_listen_thread=True, listen_port=port)
    _, address = two("memory", size=4096, fill=9)
    one = agents("one")
    one.fetch_remote_metadata("two", HERE, port)
    until(lambda: one.check_remote_metadata("two"), "the metadata")
    mine = agents.memory(one)
    local = one.get_xfer_descs([(mine.address, 4096, 0)], "DRAM")
    remote = one.get_xfer_descs([(address, 4096, 0)], "DRAM")
    moved(one, one.initialize_xfer("READ", local, remote, "two"))
    assert (mine.array[:4096] == 9).all()


def test_metadata_is_sent_and_taken_back(agents: Agents) -> None:
    two, port = listening(agents, "two")
    one = agents("one")
    agents.memory(one)
    one.send_local_metadata(HERE, port)
    until(lambda: two.check_remote_metadata("one"), "the metadata")
    two.send_notif("one", b"hello")
    assert arrived(one) == {"two": [b"hello"]}
    one.invalidate_local_metadata(HERE, port)
    until(lambda: not two.check_remote_metadata("one"), "the end of it")


def test_what_is_asked_of_a_listener_is_done_in_its_order(agents: Agents) -> None:
    two, port = listening(agents, "two")
    one = agents("one")
    for _ in range(20):
        one.send_local_metadata(HERE, port)
        one.invalidate_local_metadata(HERE, port)
    one.send_local_metadata(HERE, port)
    until(lambda: not one.agent._listener._errands, "the last errand")
    until(lambda: two.check_remote_metadata("one"), "the metadata")


def test_a_question_for_another_agent_is_not_answered(agents: Agents) -> None:
    two, port = listening(agents, "two")
    one = agents("one")
    one.fetch_remote_metadata("three", HERE, port)
    # What comes after it is done after it, on both sides.
    one.send_local_metadata(HERE, port)
    until(lambda: two.check_remote_metadata("one"), "the metadata")
    two.send_notif("one", b"after the answer, if there was one")
    arrived(one)
    assert not one.check_remote_metadata("three")
    assert not one.check_remote_metadata("two")


def test_a_listener_that_is_not_there_costs_nobody_anything(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVX_DEADLINE", "1")
    one = agents("one")
    two, port = listening(agents, "two")
    one.fetch_remote_metadata("nobody", HERE, free_port())
    one.fetch_remote_metadata("two", HERE, port)
    until(lambda: one.check_remote_metadata("two"), "the metadata")
    assert two.name == "two"


@pytest.mark.parametrize("variable", ["KVX_NAME", "KVX_METADATA_AUTH"])
def test_what_the_environment_says_of_engines_is_not_for_listeners(
    agents: Agents, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    two, port = listening(agents, "two")
    one = agents("one")
    one.send_local_metadata(HERE, port)
    one.fetch_remote_metadata("two", HERE, port)
    until(lambda: not one.agent._listener._errands, "the errands' end")
    until(lambda: two.check_remote_metadata("one"), "the metadata")
    until(lambda: one.check_remote_metadata("two"), "the answer")


def test_an_errand_that_fails_leaves_the_next_to_be_done(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, port = listening(agents, "two")
    one = agents("one")
    # No host is called so, and no text of C's can say it.
    one.agent.sendLocalMD(b"\xff", port)
    until(lambda: not one.agent._listener._errands, "the errand's end")
    # As when there is no memory for it.
    real = kvx.Engine.connect
    fails = iter((True, False))

    def connect(engine: kvx.Engine, address: str) -> Any:
        if next(fails):
            raise MemoryError
        return real(engine, address)

    monkeypatch.setattr(kvx.Engine, "connect", connect)
    one.send_local_metadata(HERE, port)
    until(lambda: not one.agent._listener._errands, "the errand's end")
    assert not two.check_remote_metadata("one")
    one.send_local_metadata(HERE, port)
    until(lambda: two.check_remote_metadata("one"), "the metadata")


def test_a_thread_that_cannot_be_had_leaves_the_next_errand_to_be_done(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, port = listening(agents, "two")
    one = agents("one")
    # The first that cannot be had is the one that hears, then the one of the errand.
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError):
                one.send_local_metadata(HERE, port)
        one.agent._listener.listen(0)
    one.fetch_remote_metadata("two", HERE, port)
    until(lambda: one.check_remote_metadata("two"), "the metadata")
    assert two.name == "two"


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_strangers_learn_nothing_at_a_listener_and_evict_nobody(agents: Agents) -> None:
    two, port = listening(agents, "two")
    memory = agents.memory(two)
    one = agents("one")
    two.add_remote_agent(one.get_agent_metadata())
    secret = two.get_agent_metadata()
    for said in (
        b"",
        b"NIXLCOMM:SEND",
        b"\0" * 64,
        b"GET / HTTP/1.0\r\n\r\n",
        one.get_agent_metadata(),
        b"\x02" + one.get_agent_metadata(),
        b"\x03" + one.get_agent_metadata(),
    ):
        heard = b""
        # It may be cut off before it has said or heard everything.
        with socket.create_connection((HERE, port), timeout=60) as stranger:
            with contextlib.suppress(OSError):
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while data := stranger.recv(4096):
                    heard += data
        assert secret[20:60] not in heard
        assert memory.address.to_bytes(8, "little") not in heard
        assert len(heard) < 200
    assert two.check_remote_metadata("one")
    # It serves as before.
    three = agents("three")
    three.fetch_remote_metadata("two", HERE, port)
    until(lambda: three.check_remote_metadata("two"), "the metadata")


def test_who_holds_no_metadata_of_an_agent_takes_nothing_back(agents: Agents) -> None:
    """A holder of the listener's key is not the agent whose name it says."""
    two, port = listening(agents, "two")
    one = agents("one")
    two.add_remote_agent(one.get_agent_metadata())
    impostor = agents("one")
    impostor.invalidate_local_metadata(HERE, port)
    until(lambda: not impostor.agent._listener._errands, "the errand's end")
    # What comes after it is done after it.
    sign = agents("sign")
    sign.send_local_metadata(HERE, port)
    until(lambda: two.check_remote_metadata("sign"), "the sign")
    assert two.check_remote_metadata("one")


def test_a_listener_says_what_it_does_not_understand(agents: Agents) -> None:
    two, port = listening(agents, "two")
    with kvx.Engine("talker", log="kvx=error", environment=False) as talker:
        peer = talker.connect(f"{HERE}:{port}").wait(30)
        for said in (b"", b"\x01", b"\x01\xff\xff\xff\xff", b"\x02noise", b"\x03noise", b"\x09"):
            peer.notify(said).wait(30)
    one = agents("one")
    one.send_local_metadata(HERE, port)
    until(lambda: two.check_remote_metadata("one"), "the metadata")


def test_a_listener_without_a_key_answers_on_loopback_alone(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(settings, "Engine", lambda *_, **options: opened.append(options))
    settings.open_listener(8888)
    monkeypatch.setenv("KVX_INSECURE", "0")
    settings.open_listener(8888)
    assert [options["bind"] for options in opened] == ["127.0.0.1:8888"] * 2
    assert agents.nixl is not None


def test_a_listener_with_a_key_lets_its_holders_in(
    agents: Agents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[dict[str, Any]] = []
    with monkeypatch.context() as patched:
        patched.setenv("KVX_INSECURE", "1")
        patched.setattr(settings, "Engine", lambda *_, **options: opened.append(options))
        settings.open_listener(8888)
    assert opened[0]["bind"] == "[::]:8888"
    key, other = tmp_path / "key", tmp_path / "other"
    for file in (key, other):
        file.touch(0o600)
        file.write_bytes(file.name.encode() * 16)
    # Off loopback the address would be open to this host's network: not in a test.
    monkeypatch.setattr(settings, "_on_every_interface", on_loopback)
    monkeypatch.setenv("KVX_AUTH_KEY_FILE", str(key))
    two, port = listening(agents, "two")
    one = agents("one")
    one.send_local_metadata(HERE, port)
    until(lambda: two.check_remote_metadata("one"), "the metadata")
    monkeypatch.setenv("KVX_AUTH_KEY_FILE", str(other))
    three = agents("three")
    three.send_local_metadata(HERE, port)
    until(lambda: not three.agent._listener._errands, "the errand's end")
    assert not two.check_remote_metadata("three")


def on_loopback(port: int, **options: Any) -> kvx.Engine:
    return kvx.Engine(bind=f"{HERE}:{port}", **options)
