"""The agents that an agent knows: by name, each in one life, with the memory it told of."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvx import Engine, Peer, Spans
from kvx.dropin.nixl.descriptors import Table
from kvx.dropin.nixl.envelope import Envelope
from kvx.dropin.nixl.errors import (
    failure,
    in_nixls_words,
    nixlInvalidParamError,
    nixlMismatchError,
    nixlNotAllowedError,
    nixlNotFoundError,
    nixlRemoteDisconnectError,
    translated,
)
from kvx.dropin.nixl.log import get_logger
from kvx.dropin.nixl.names import nixl_mem_t
from kvx.dropin.nixl.places import Found, Piece, Places, missing
from kvx.errors import DeadlineError, Error, HandshakeError, InvalidError, PeerRestartedError

if TYPE_CHECKING:
    from kvx.dropin.nixl.requests import Post, Request

logger = get_logger("kvx")

# How long the removal of an agent waits for its transfers to end before it cuts the agent off.
_REMOVAL_S = 1.0


class Remote:
    """Another agent, in one of its lives."""

    def __init__(self, envelope: Envelope, peer: Peer) -> None:
        self.name = envelope.agent
        #: The id and the life of its engine.
        self.identity = envelope.identity
        #: Whether it was removed, or is gone: then nothing more is begun with it.
        self.removed = False
        #: What was posted and not seen to end, and of which request each is.
        self.active: dict[Post, Request] = {}
        #: Bytes a microsecond that the last large transfer moved; 0: none did.
        self.rate = 0.0
        self._known = _Known(peer, (_Told(envelope, peer),))

    @property
    def engine_id(self) -> bytes:
        """The id of its engine."""
        return self.identity[:16]

    @property
    def peer(self) -> Peer:
        """Its engine."""
        return self._known.peer

    def learn(self, envelope: Envelope, peer: Peer) -> None:
        """Takes up what further metadata of the same life tells."""
        new = _Told(envelope, peer)
        told, joined = [new], peer
        try:
            for old in () if envelope.complete else self._known.told:
                if not set(old.pieces) <= set(new.pieces):
                    told.append(old)
                    joined = joined.joined(old.peer)
        except InvalidError:
            # The connection that it was known by is over, and what it told went with it.
            told, joined = [new], peer
        self._known = _Known(joined, tuple(told))

    def spans(self, kind: nixl_mem_t, table: Table) -> Spans:
        """Places of its memory.

        Raises:
            nixlNotFoundError: a row that does not lie in memory that it told of.
        """
        known = self._known
        found = known.find(kind, table)
        if not found.held.all():
            raise missing(kind, table, found.held, self.name)
        with in_nixls_words():
            return known.peer.spans(found.offset, table[:, 1], found.piece)

    def has(self, kind: nixl_mem_t, table: Table) -> bool:
        """Whether all rows lie in memory that it told of."""
        return bool(self._known.find(kind, table).held.all())

    def check(self) -> None:
        """Raises nixlNotFoundError if it was removed."""
        if self.removed:
            raise failure(nixlNotFoundError, f"agent {self.name} was removed")

    def enter(self, post: Post, request: Request) -> None:
        """Takes up a post that is about to begin, which a removal then ends.

        Raises:
            nixlNotFoundError: it was removed.
        """
        # In this order: either the removal finds the post, or it is seen here.
        self.active[post] = request
        try:
            self.check()
        except nixlNotFoundError:
            self.leave(post)
            raise

    def leave(self, post: Post) -> None:
        """Lets go of a post that has ended."""
        self.active.pop(post, None)


class _Known(NamedTuple):
    """What is known of an agent at one moment. Metadata that comes makes another: whoever looks at
    one has numbers of regions and the peer that they are of."""

    #: With the regions of all that was told, in that order.
    peer: Peer
    #: What its metadata told, the newest first: memory that was registered anew is found there.
    told: tuple[_Told, ...]

    def find(self, kind: nixl_mem_t, table: Table) -> Found:
        """The region of `peer` that holds each row, of those that one holds."""
        first, *others = self.told
        found = first.places.look(kind, table)
        before = len(first.pieces)
        for told in others:
            rows = np.flatnonzero(~found.held)
            if len(rows) == 0:
                break
            older = told.places.look(kind, table[rows])
            found.piece[rows] = older.piece + np.uint32(before)
            found.offset[rows], found.held[rows] = older.offset, older.held
            before += len(told.pieces)
        return found


class _Told:
    """What one piece of metadata told."""

    def __init__(self, envelope: Envelope, peer: Peer) -> None:
        self.peer = peer
        self.pieces = [
            Piece(kind.memory, kind.device, region.address, region.length)
            for kind, region in zip(envelope.kinds, peer.regions)
        ]
        self.places = Places(self.pieces)


class Remotes:
    """The agents that one agent has added. Used from many threads."""

    def __init__(self, engine: Engine, myself: str) -> None:
        self._engine = engine
        self._myself = myself
        self._lock = threading.Lock()
        self._by_name: dict[str, Remote] = {}

    def add(self, metadata: bytes) -> str:
        """Adds an agent, or what it tells besides; its name.

        Raises:
            nixlMismatchError: bytes that are no metadata.
            nixlInvalidParamError: the agent's own.
            nixlNotFoundError: metadata that does not say how to connect, of an unknown agent.
            nixlNotAllowedError: of an earlier life, while another is connected.
        """
        envelope = Envelope.decode(metadata)
        if envelope.agent == self._myself:
            raise failure(nixlInvalidParamError, "metadata of this agent itself")
        with self._lock:
            known = self._by_name.get(envelope.agent)
            same = known is not None and known.identity == envelope.identity
            if not envelope.connects and not same:
                raise failure(
                    nixlNotFoundError,
                    f"agent {envelope.agent} is not known, and this does not say how to connect",
                )
            peer = self._peer(envelope)
            if known is not None and same:
                known.learn(envelope, peer)
            else:
                if known is not None:
                    known.removed = True
                self._by_name[envelope.agent] = Remote(envelope, peer)
        return envelope.agent

    def _peer(self, envelope: Envelope) -> Peer:
        try:
            peer = self._engine.add_peer(envelope.engine)
        except InvalidError as error:
            raise failure(nixlMismatchError, str(error)) from error
        except (HandshakeError, PeerRestartedError) as error:
            raise failure(nixlNotAllowedError, str(error)) from error
        except Error as error:
            raise translated(error) from error
        if len(peer.regions) != len(envelope.kinds):
            raise failure(nixlMismatchError, "metadata: its parts do not fit each other")
        return peer

    def get(self, name: str) -> Remote:
        """The agent of this name.

        Raises:
            nixlNotFoundError: it was not added.
        """
        found = self.known(name)
        if found is None:
            raise failure(nixlNotFoundError, f"agent {name} is not known")
        return found

    def known(self, name: str) -> Remote | None:
        """The agent of this name, if it was added."""
        return self._by_name.get(name)

    def of_engine(self, engine_id: bytes) -> Remote | None:
        """The agent that has this engine, if it was added."""
        for remote in self._all():
            if remote.engine_id == engine_id:
                return remote
        return None

    def _all(self) -> Iterator[Remote]:
        return iter(list(self._by_name.values()))

    def remove(self, name: str) -> bool:
        """Forgets an agent; no transfer with it moves anything when this returns.

        What the agent itself does with memory of this one goes on, as it does with NIXL. Returns
        whether it was known.
        """
        with self._lock:
            remote = self._by_name.pop(name, None)
        if remote is None:
            return False
        remote.removed = True
        until = time.monotonic() + _REMOVAL_S
        if not all(request.ends_by(until) for request in list(remote.active.values())):
            logger.warning("Agent %s does not answer; the connection to it is cut", name)
            remote.peer.remove()
        return True

    def failed(self, remote: Remote, error: Error) -> Exception:
        """What a failed transfer raises. An agent that is gone is not known any more: it can be
        added again."""
        lost = isinstance(error, DeadlineError) and not _connected(remote.peer)
        if lost or isinstance(error, ConnectionError):
            with self._lock:
                if self._by_name.get(remote.name) is remote:
                    del self._by_name[remote.name]
            remote.removed = True
        return translated(error, nixlRemoteDisconnectError if lost else None)


def _connected(peer: Peer) -> bool:
    try:
        return peer.connected
    except Error:
        return False
