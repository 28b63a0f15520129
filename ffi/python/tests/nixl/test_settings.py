"""What the environment and the configuration come to, and who may connect."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from nixl_agents import Agents, moved, until

import kvx
from kvx.dropin import FOLDER
from kvx.dropin.nixl import settings


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of engines that would be opened."""
    options: list[dict[str, Any]] = []
    real = kvx.Engine

    class Noted(real):  # type: ignore[misc, valid-type]
        def __init__(self, name: str | None = None, **given: Any) -> None:
            options.append({"name": name, **given})

    monkeypatch.setattr(settings, "Engine", Noted)
    return options


def test_agents_listen_everywhere_and_let_in_who_holds_their_metadata(
    opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KVX_BIND")
    settings.open_engine("a", {})
    assert (opened[0]["bind"], opened[0]["metadata_auth"]) == ("[::]:0", True)
    monkeypatch.setenv("KVX_BIND", "127.0.0.1")
    settings.open_engine("a", {})
    assert "bind" not in opened[1]
    assert opened[1]["metadata_auth"]


def test_who_does_not_hold_the_metadata_is_not_let_in(agents: Agents) -> None:
    agent = agents("one")
    address = agent.agent._parts.engine.address
    with kvx.Engine("stranger", log="kvx=error") as stranger:
        # On loopback other engines of the same user are strangers, too.
        with pytest.raises(kvx.HandshakeError):
            stranger.connect(address).wait(30)
        other = agents("other").get_agent_metadata()
        assert other != agent.get_agent_metadata()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(b"\0" * 4096)
        heard = b""
        try:
            while data := raw.recv(4096):
                heard += data
        except ConnectionResetError:
            pass
    assert len(heard) < 200


@pytest.mark.parametrize(
    ("devices", "advertised"),
    [
        ("lo", "lo"),
        ("mlx5_0:1,lo", "lo"),
        ("mlx5_0:1, lo:1 ,nowhere", "lo"),
        ("mlx5_0:1", None),
        ("all", None),
        ("lo,all", None),
        ("", None),
    ],
)
def test_devices_name_the_interfaces_that_others_come_by(
    opened: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    devices: str,
    advertised: str | None,
) -> None:
    monkeypatch.setenv("UCX_NET_DEVICES", devices)
    settings.open_engine("a", {})
    monkeypatch.delenv("UCX_NET_DEVICES")
    settings.open_engine("a", {"device_list": devices})
    settings.open_engine("a", {"ucx_devices": devices})
    assert [options.get("advertise") for options in opened] == [advertised] * 3
    monkeypatch.setenv("KVX_ADVERTISE", "lo")
    settings.open_engine("a", {"device_list": devices})
    assert "advertise" not in opened[-1]


def test_threads_are_those_of_the_engine(
    opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.open_engine("a", {"num_threads": "1"})
    settings.open_engine("a", {"num_threads": "0"})
    settings.open_engine("a", {"num_threads": "100000"})
    cores = os.cpu_count() or 1
    assert [options.get("io_threads") for options in opened] == [1, None, cores]
    monkeypatch.setenv("KVX_IO_THREADS", "3")
    settings.open_engine("a", {"num_threads": "1"})
    assert "io_threads" not in opened[-1]
    with pytest.raises(kvx.InvalidError):
        settings.open_engine("a", {"num_threads": "many"})


@pytest.mark.parametrize(
    ("said", "logged"),
    [(None, "kvx=warn"), ("DEBUG", "kvx=debug"), ("fatal", "kvx=error"), ("loud", "kvx=warn")],
)
def test_the_log_level_is_the_engines_too(
    opened: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    said: str | None,
    logged: str,
) -> None:
    monkeypatch.delenv("NIXL_LOG_LEVEL")
    if said is not None:
        monkeypatch.setenv("NIXL_LOG_LEVEL", said)
    settings.open_engine("a", {})
    assert opened[0]["log"] == logged
    monkeypatch.setenv("KVX_LOG", "kvx=trace")
    settings.open_engine("a", {})
    assert opened[1]["log"] is None


def test_names_that_an_engine_cannot_have_are_kept_apart() -> None:
    names = ["plain", "ä€", "x" * 255, "x" * 256, "x" * 257, "a\nb", "a\0b", "\udcff", "\x7f"]
    made = [settings.engine_name(name) for name in names]
    assert made[:3] == names[:3]
    assert len(set(made)) == len(names)
    for name in made:
        kvx.Engine(name, log="kvx=error", environment=False).close()


def test_logs_go_to_standard_error(nixl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIXL_LOG_LEVEL")
    program = "from nixl._api import nixl_agent; nixl_agent('a'); print('mine')"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": FOLDER},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert ended.stdout == "mine\n"
    assert "backend UCX" in ended.stderr
    assert logging.getLogger("nixl").handlers
    assert nixl.logging.get_logger("x").name == "nixl.x"


@pytest.mark.parametrize("package", ["nixl", "nixl_cu12", "nixl_cu13"])
def test_each_name_of_the_package_is_the_same(nixl: Any, package: str) -> None:
    import importlib

    for module in ("_api", "_bindings", "_utils", "logging"):
        found = importlib.import_module(f"{package}.{module}")
        assert found is getattr(nixl, module)


def test_an_agent_that_is_let_go_of_frees_what_it_had(agents: Agents) -> None:
    one, two = agents("one"), agents("two")
    theirs = agents.memory(two, fill=4)
    mine = agents.memory(one)
    one.add_remote_agent(two.get_agent_metadata())
    local = one.get_xfer_descs([(mine.address, 64, 0)], "DRAM")
    remote = one.get_xfer_descs([(theirs.address, 64, 0)], "DRAM")
    handle = one.initialize_xfer("READ", local, remote, "two")
    moved(one, handle)
    agents.forget(two)
    del two
    import gc

    gc.collect()

    def failed() -> bool:
        try:
            moved(one, handle)
        except agents.nixl._bindings.nixlRemoteDisconnectError:
            return True
        return False

    until(failed, "the news of its end")
