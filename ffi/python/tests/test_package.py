"""What the package is: what it loads, what it says of itself, how it takes options."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import kvx
from kvx._call import lib

Make = Callable[..., kvx.Engine]


def test_statuses_are_those_of_the_library() -> None:
    named = {name: int(value) for name, value in kvx.Status.__members__.items()}
    found = {name[4:]: getattr(lib, name) for name in dir(lib) if name.startswith("KVX_")}
    assert named == {name: found[name] for name in named}
    statuses = {name for name, value in found.items() if isinstance(value, int) and value < 0}
    assert statuses <= set(named)


def test_the_package_has_the_version_of_its_library() -> None:
    assert kvx.__version__ == metadata.version("kvx")


def test_each_failure_has_a_class_of_its_own() -> None:
    from kvx.errors import error

    classes = {status: type(error(status, "")) for status in kvx.Status if status < 0}
    assert len(set(classes.values())) == len(classes)
    for status, kind in classes.items():
        assert kind.status == status
        assert getattr(kvx, kind.__name__) is kind
    assert issubclass(kvx.DeadlineError, TimeoutError)
    assert issubclass(kvx.PeerRestartedError, ConnectionError)
    assert type(error(-99, "new")) is kvx.FailedError


def test_nothing_but_itself_is_loaded() -> None:
    program = "import sys, kvx; print(*sys.modules); print(open('/proc/self/maps').read())"
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert "libkvx.so" in told
    assert not re.search(r"libibverbs|libcuda|libcudart|libnixl|libucp", told)
    assert "torch" not in told.split("\n")[0].split()


def test_the_package_is_typed() -> None:
    assert (Path(kvx.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bind": "nowhere"}, "nowhere"),
        ({"bind": "127.0.0.1\0"}, "zero byte"),
        ({"bind": "\udcff"}, "bind: .*surrogates"),
        ({"transports": "carrier-pigeon"}, "carrier-pigeon"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": -1}, "deadline"),
        ({"deadline": float("inf")}, "deadline"),
        ({"lanes": 0}, "lanes"),
        ({"lanes": 1 << 16}, "lanes"),
        ({"peer_memory": 1 << 64}, "peer_memory"),
        ({"bind": "0.0.0.0"}, "KVX_AUTH_KEY_FILE"),
    ],
)
def test_options_that_cannot_be_honoured_are_errors(
    make_engine: Make, options: dict[str, object], says: str
) -> None:
    with pytest.raises(kvx.InvalidError, match=says):
        make_engine(**options)


def test_arguments_win_over_the_environment(
    make_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVX_BIND", "127.0.0.2")
    assert make_engine(environment=True).address.startswith("127.0.0.2:")
    assert make_engine(environment=True, bind="127.0.0.3").address.startswith("127.0.0.3:")
    assert make_engine().address.startswith("127.0.0.1:")
    # Whom it lets in: by default on loopback other engines of the user.
    monkeypatch.setenv("KVX_METADATA_AUTH", "1")
    dials = make_engine()
    with pytest.raises(kvx.HandshakeError):
        dials.connect(make_engine(environment=True).address).wait(20)
    dials.connect(make_engine(environment=True, metadata_auth=False).address).wait(20)


def test_peers_are_known_by_their_engine(make_engine: Make) -> None:
    a, b = make_engine("a"), make_engine("b")
    peer = a.add_peer(b.metadata([]))
    peer.ready().wait(20)
    assert (peer.id, peer.incarnation, peer.connected) == (b.id, b.incarnation, True)
    assert peer.name.startswith("b ")
    with pytest.raises(kvx.HandshakeError):
        a.add_peer(a.metadata([]))
    with pytest.raises(kvx.InvalidError):
        a.add_peer(b"garbage")
    b.close()
    with pytest.raises(kvx.Error):
        peer.notify(b"late").wait(20)


def test_metadata_admits_who_holds_it_and_nobody_else(make_engine: Make) -> None:
    owner, holder = make_engine("owner", metadata_auth=True), make_engine("holder")
    with pytest.raises(kvx.HandshakeError):
        holder.connect(owner.address).wait(20)
    peer = holder.add_peer(owner.metadata([]))
    peer.notify(b"with its metadata").wait(20)
    assert make_engine(bind="0.0.0.0", metadata_auth=True).address.startswith("0.0.0.0:")


def test_a_restarted_peer_is_a_new_one(make_engine: Make) -> None:
    a = make_engine("a")
    for _ in range(3):
        b = make_engine("b")
        peer = a.add_peer(b.metadata([]))
        peer.notify(b"hello").wait(20)
        told = b.wait_notification(20)
        assert told is not None
        assert told.data == b"hello"
        b.close()
