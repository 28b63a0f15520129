"""Peers by the names that callers use: connected once, found again, forgotten when over."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import kvx
from kvx.dropin.mooncake import addresses
from kvx.dropin.mooncake.addresses import Endpoint
from kvx.dropin.mooncake.settings import LOG

if TYPE_CHECKING:
    from kvx.dropin.mooncake.settings import Settings


class Peers:
    """The peers of one engine. Whoever waits for one keeps nobody from the others."""

    def __init__(self, engine: kvx.Engine, own: Endpoint, settings: Settings) -> None:
        self._engine = engine
        self._own = own
        self._settings = settings
        self._lock = threading.Lock()
        self._roads: dict[str, _Road] = {}

    def reach(self, target: str, until: float) -> kvx.Peer:
        """The peer of this name, connected, with the regions that were last heard of.

        Raises:
            kvx.Error, OSError: it cannot be reached by then (`time.monotonic()`).
        """
        for _ in range(2):
            peer = self._arrival(target, until)
            if peer.connected or self._is_there(target, peer, until):
                return peer
            self.forget(target, peer)
        raise kvx.PeerLostError(f"connect, peer {target}: it goes away as soon as it comes")

    def ask(self, target: str, peer: kvx.Peer, until: float) -> kvx.Peer:
        """The same peer, with the regions that it has now."""
        return self.learn(target, peer.published().wait(remaining(until)))

    def learn(self, target: str, peer: kvx.Peer) -> kvx.Peer:
        """Remembers what a peer was heard to have."""
        with self._lock:
            road = self._roads.get(target)
            if road is not None and road.leads_to(peer):
                road.arrive(peer)
        return peer

    def forget(self, target: str, peer: kvx.Peer) -> None:
        """The peer is over: who names it again connects anew."""
        with self._lock:
            road = self._roads.get(target)
            if road is not None and road.leads_to(peer):
                del self._roads[target]

    def probe(self, target: str, until: float) -> None:
        """Returns if the peer answers.

        Raises:
            addresses.UnresolvedError: the name is none.
            kvx.Error, OSError: it cannot be reached by then.
        """
        # Who listens no more has nothing to answer, whatever became of the connection.
        self._knock(target)
        self.ask(target, self.reach(target, until), until)

    def is_self(self, target: str) -> bool:
        """Whether the name is this engine's own.

        Raises:
            addresses.UnresolvedError: the name is none.
        """
        host, port = addresses.split(target)
        if port != self._own.port:
            return False
        places = addresses.resolve(host, port, self._settings.ipv6)
        if addresses.is_unspecified(self._own.ip):
            return any(addresses.is_own(place.ip) for place in places)
        return self._own in places

    def _arrival(self, target: str, until: float) -> kvx.Peer:
        """The peer that the road leads to, which this thread builds if nobody does."""
        while True:
            with self._lock:
                road = self._roads.get(target)
                is_new = road is None
                if road is None:
                    self._roads[target] = road = _Road(target)
            peer = self._build(road, target, until) if is_new else road.wait(until)
            if peer is not None:
                return peer

    def _build(self, road: _Road, target: str, until: float) -> kvx.Peer:
        try:
            peer = self._connect(target, until)
        except BaseException as error:
            with self._lock:
                if self._roads.get(target) is road:
                    del self._roads[target]
            road.fail(error)
            raise
        road.arrive(peer)
        self._drop_dead(road)
        return peer

    def _connect(self, target: str, until: float) -> kvx.Peer:
        if self.is_self(target):
            return self._engine.myself().published().result()
        place = self._knock(target)
        peer = self._engine.connect(str(place)).wait(remaining(until))
        return peer.published().wait(remaining(until))

    def _knock(self, target: str) -> Endpoint:
        """Whoever listens there, if anyone does."""
        host, port = addresses.split(target)
        if port is None:
            # So that a name that is none is told from one that leads nowhere.
            addresses.resolve(host, 0)
            raise ConnectionRefusedError(f"{target!r} names no port")
        places = addresses.resolve(host, port, self._settings.ipv6)
        return addresses.knock(places, self._settings.connect_timeout)

    def _is_there(self, target: str, peer: kvx.Peer, until: float) -> bool:
        """Of a peer that is not connected, or silent: whether it comes back in the same life."""
        self._knock_or_forget(target, peer)
        try:
            peer.ready().wait(remaining(until))
        except kvx.PeerError as error:
            LOG.info("%s: connecting anew: %s", target, error)
            return False
        return True

    def _knock_or_forget(self, target: str, peer: kvx.Peer) -> None:
        try:
            self._knock(target)
        except ConnectionRefusedError:
            # Nobody is there any more, and who comes next is another.
            self.forget(target, peer)
            raise
        except OSError:
            # Silence may end.
            return

    def _drop_dead(self, newest: _Road) -> None:
        """Names are not kept for ever: with each new one, those go whose peer is not there."""
        with self._lock:
            for target, road in list(self._roads.items()):
                if road is not newest and road.is_over():
                    del self._roads[target]


class _Road:
    """How one name is reached: being connected by one thread, waited for by any number."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._settled = threading.Event()
        self._peer: kvx.Peer | None = None
        self._failure: Exception | None = None

    def arrive(self, peer: kvx.Peer) -> None:
        self._peer = peer
        self._settled.set()

    def fail(self, failure: BaseException) -> None:
        # What came of one thread's deadline, or of a signal to it, holds for that thread alone.
        own = (kvx.DeadlineError, kvx.PendingError)
        if isinstance(failure, (kvx.Error, OSError)) and not isinstance(failure, own):
            self._failure = failure
        self._settled.set()

    def wait(self, until: float) -> kvx.Peer | None:
        """The peer; `None` if who was connecting has given up, which says nothing of the peer.

        Raises:
            kvx.Error, OSError: it cannot be reached, or this thread's own time has come.
        """
        if not self._settled.wait(remaining(until)):
            raise kvx.DeadlineError(f"connect, peer {self._target}: not within its time")
        if self._failure is not None:
            raise self._failure
        return self._peer

    def leads_to(self, peer: kvx.Peer) -> bool:
        """Whether it is this life of the peer that it leads to."""
        known = self._peer
        return known is not None and known.incarnation == peer.incarnation

    def is_over(self) -> bool:
        peer = self._peer
        return peer is not None and not peer.connected


def remaining(until: float) -> float:
    """Seconds until then; 0 when it has come."""
    return max(0.0, until - time.monotonic())
