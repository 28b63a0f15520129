"""Metadata over the network: agents hand it to each other's listeners.

A listener is an engine of its own, because whoever may use an agent's engine holds the agent's
metadata already. It lets in holders of the shared key (on loopback: this user's processes), and
speaks in notifications: a byte that says what it is, then

    1 ASK         u32 length and the asker's listener's own metadata, then the name of the agent
                  that is asked for
    2 TELL        an agent's metadata
    3 TAKE_BACK   an agent's metadata: forget it, in this life

Nobody waits for anybody: what cannot be done is logged, as NIXL does it.
"""

from __future__ import annotations

import queue
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Callable

import kvx
from kvx import Engine, Peer
from kvx.dropin.nixl.errors import in_nixls_words
from kvx.dropin.nixl.log import get_logger
from kvx.dropin.nixl.settings import open_listener

if TYPE_CHECKING:
    from kvx.dropin.nixl.agent import nixlAgent

logger = get_logger("kvx")

_ASK, _TELL, _TAKE_BACK = 1, 2, 3
_LENGTH = struct.Struct("<I")

Errand = Callable[[Peer], None]


class Listener:
    """An agent's listener. It has no threads and no port until it is needed."""

    def __init__(self, agent: nixlAgent) -> None:
        self._agent = weakref.ref(agent)
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        # What is still to be done at each place, in its order.
        self._errands: dict[tuple[str, int], queue.Queue[Errand]] = {}

    def listen(self, port: int) -> None:
        """Listens on a port.

        Raises:
            RuntimeError: it cannot be had.
        """
        try:
            self._opened(port)
        except kvx.Error as error:
            raise RuntimeError(f"the listener cannot be opened: {error}") from error

    def tell(self, host: str, port: int, metadata: bytes) -> None:
        """Hands metadata to a listener."""
        self._later(host, port, lambda peer: _say(peer, _TELL, metadata))

    def take_back(self, host: str, port: int, metadata: bytes) -> None:
        """Asks a listener to forget this agent."""
        self._later(host, port, lambda peer: _say(peer, _TAKE_BACK, metadata))

    def ask(self, host: str, port: int, agent: str) -> None:
        """Asks a listener for its agent's metadata."""
        with in_nixls_words():
            own = self._opened(0).metadata([])
        name = agent.encode("utf-8", "surrogateescape")
        question = _LENGTH.pack(len(own)) + own + name
        self._later(host, port, lambda peer: _say(peer, _ASK, question))

    def _opened(self, port: int) -> Engine:
        """The listener's engine, which ends with the agent."""
        agent = self._agent()
        with self._lock:
            if self._engine is None:
                engine = open_listener(port)
                hears = threading.Thread(
                    target=_hear, args=(engine, self._agent), name="kvx-nixl-listener", daemon=True
                )
                hears.start()
                if agent is not None:
                    weakref.finalize(agent, engine.close)
                self._engine = engine
            return self._engine

    def _later(self, host: str, port: int, errand: Errand) -> None:
        """Does something at a place, after what is to be done there already."""
        with in_nixls_words():
            engine = self._opened(0)
        place = (host, port)
        with self._lock:
            waiting = self._errands.get(place)
            if waiting is None:
                waiting = queue.Queue()
                runs = threading.Thread(
                    target=self._run,
                    args=(engine, place, waiting),
                    name="kvx-nixl-errands",
                    daemon=True,
                )
                # It begins with the lock; where it cannot be had there is no entry for it.
                runs.start()
                self._errands[place] = waiting
            waiting.put(errand)

    def _run(self, engine: Engine, place: tuple[str, int], waiting: queue.Queue[Errand]) -> None:
        """Does what is to be done at a place, until nothing is."""
        while True:
            with self._lock:
                try:
                    errand = waiting.get_nowait()
                except queue.Empty:
                    del self._errands[place]
                    return
            try:
                errand(engine.connect(_address(*place)).wait())
            except Exception as error:
                # What follows it is to be done all the same.
                logger.error("The listener at %s port %d: %s", *place, error)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _say(peer: Peer, kind: int, body: bytes) -> None:
    peer.notify(bytes((kind,)) + body).wait()


def _hear(engine: Engine, agent: weakref.ref[nixlAgent]) -> None:
    """Does what others say to a listener, until its engine is closed."""
    while True:
        try:
            notification = engine.wait_notification()
        except kvx.Error:
            return
        if notification is None:
            # Nothing comes any more.
            return
        listens = agent()
        if listens is None:
            return
        try:
            _obey(engine, listens, notification.data)
        except Exception as error:
            # The text may have what the peer calls itself, however long.
            logger.error("%s said to the listener: %.200r", notification.peer, str(error))
        # The agent is its users' to keep.
        del listens


def _obey(engine: Engine, agent: nixlAgent, said: bytes) -> None:
    kind, body = said[:1], said[1:]
    if kind == bytes((_TELL,)):
        agent.loadRemoteMD(body)
    elif kind == bytes((_TAKE_BACK,)):
        agent.forget_if_same(body)
    elif kind == bytes((_ASK,)):
        _answer(engine, agent, body)
    else:
        raise ValueError(f"a message of kind {kind!r}")


def _answer(engine: Engine, agent: nixlAgent, body: bytes) -> None:
    if len(body) < _LENGTH.size:
        raise ValueError("a question that is cut off")
    (length,) = _LENGTH.unpack_from(body)
    end = _LENGTH.size + length
    if end > len(body):
        raise ValueError("a question that is cut off")
    name = body[end:].decode("utf-8", "surrogateescape")
    if name != agent.name:
        raise ValueError(f"a question for agent {name!r}; this is {agent.name!r}")
    asker = engine.add_peer(body[_LENGTH.size : end])
    # It has connected, or is about to: nobody here waits for it.
    asker.notify(bytes((_TELL,)) + agent.getLocalMD()).release()
