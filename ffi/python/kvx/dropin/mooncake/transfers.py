"""One call's bytes on their way: posted as one transfer, followed until its end is certain."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import kvx
from kvx.dropin.mooncake.peers import Peers, remaining
from kvx.dropin.mooncake.settings import LOG

if TYPE_CHECKING:
    from kvx.dropin.mooncake.arguments import Column
    from kvx.dropin.mooncake.memory import Memory
    from kvx.dropin.mooncake.settings import Settings


class Outcome(enum.Enum):
    """How it ended."""

    DONE = 0
    FAILED = -1
    TIMED_OUT = -2


class Order(NamedTuple):
    """What a caller asked for: `lengths[i]` bytes between `buffers[i]` here and `places[i]` at the
    target."""

    op: kvx.Op
    target: str
    buffers: Column
    places: Column
    lengths: Column
    notification: bytes | None

    def without_empty(self) -> Order:
        """The same without pairs of length 0, which may be anywhere."""
        some = self.lengths != 0
        if bool(some.all()):
            return self
        return self._replace(
            buffers=self.buffers[some], places=self.places[some], lengths=self.lengths[some]
        )

    def __str__(self) -> str:
        count, way = len(self.lengths), "to" if self.op is kvx.Op.WRITE else "from"
        return f"{self.op.name} of {count} buffers {way} {self.target}"


class Transfers:
    """Posts the orders of one engine."""

    def __init__(
        self, engine: kvx.Engine, memory: Memory, peers: Peers, settings: Settings
    ) -> None:
        self.life = engine.incarnation
        self.memory = memory
        self.peers = peers
        self.settings = settings

    def post(self, order: Order) -> Running:
        """Begins it.

        Raises:
            kvx.Error, OSError: nothing was sent.
        """
        return Running(self, order.without_empty())


class Running:
    """A transfer under way.

    A WRITE that is reported as failed does not land any more: where its error does not say so by
    itself, the target is asked, and if it does not answer the deadline is waited for, which the
    target enforces on its own.
    """

    def __init__(self, by: Transfers, order: Order) -> None:
        self._by = by
        self._order = order
        allowed = by.settings.transfer_timeout + float(order.lengths.sum(dtype=np.float64)) * 1e-9
        self._until = time.monotonic() + min(allowed, _LONGEST)
        # Held by whoever looks at what has ended, never while waiting.
        self._lock = threading.Lock()
        self._outcome: Outcome | None = None
        self._failure = Outcome.FAILED
        self._is_second = False
        # What is waited for; `None`: `_until`.
        self._operation: kvx.Operation[Any] | None = None
        self._stage = _Stage.MOVING
        self._borrowed: kvx.Region | None = None
        try:
            self._peer = self._post_first()
        except BaseException:
            self._release()
            raise

    def poll(self) -> Outcome | None:
        """The outcome, if there is one yet. Never waits."""
        with self._lock:
            while self._outcome is None and self._has_ended():
                self._outcome = self._step()
                if self._outcome is not None:
                    self._release()
        return self._outcome

    def wait(self) -> Outcome:
        """Waits for the outcome."""
        while True:
            outcome = self.poll()
            if outcome is not None:
                return outcome
            operation = self._operation
            if operation is None:
                time.sleep(remaining(self._until))
                continue
            # What came of it is looked at above.
            with contextlib.suppress(kvx.Error):
                operation.wait(remaining(self._until) + _GRACE)

    def _post_first(self) -> kvx.Peer:
        """Posts; once more where what was known of the peer turns out to be old."""
        peers, target = self._by.peers, self._order.target
        peer = peers.reach(target, self._until)
        try:
            return self._post_to(peer)
        except (kvx.InvalidError, kvx.RefusedError):
            # Memory that was registered since, perhaps.
            peer = peers.ask(target, peer, self._until)
        except kvx.PeerError as error:
            LOG.info("%s: connecting anew: %s", target, error)
            peers.forget(target, peer)
            peer = peers.reach(target, self._until)
        return self._post_to(peer)

    def _post_to(self, peer: kvx.Peer) -> kvx.Peer:
        order, memory = self._order, self._by.memory
        if peer.incarnation == self._by.life:
            # Of its own memory the engine knows what there is now.
            peer = peer.published().result()
        if not len(order.lengths):
            told = order.notification
            self._operation = peer.ready() if told is None else peer.notify(told)
            return peer
        with peer.spans_at(order.places, order.lengths) as remote:
            self._release()
            local, self._borrowed = memory.spans(order.buffers, order.lengths)
            with local, kvx.prepare(order.op, local, remote) as prepared:
                left = max(remaining(self._until), _GRACE)
                progress = min(self._by.settings.progress_timeout or left, left)
                # Of a READ the target is told once this side has the data: see `_step`.
                told = order.notification if order.op is kvx.Op.WRITE else None
                self._operation = prepared.post(told, deadline=progress, total_deadline=left)
        return peer

    def _has_ended(self) -> bool:
        if self._operation is None:
            return time.monotonic() >= self._until
        return self._operation.done

    def _step(self) -> Outcome | None:
        """What follows now that a stage has ended; `None`: another stage."""
        operation, self._operation = self._operation, None
        if self._stage is _Stage.WAITING or operation is None:
            return self._failure
        try:
            result = operation.result()
        except kvx.Error as error:
            return self._failed(error)
        if self._stage is _Stage.MOVING:
            return self._moved()
        if self._stage is _Stage.TELLING:
            return Outcome.DONE
        if self._stage is _Stage.FENCING:
            return self._failure
        return self._post_again(result)

    def _moved(self) -> Outcome | None:
        order = self._order
        if order.op is kvx.Op.WRITE or order.notification is None or not len(order.lengths):
            return Outcome.DONE
        self._stage = _Stage.TELLING
        try:
            self._operation = self._peer.notify(order.notification)
        except kvx.Error as error:
            return self._give_up(error)
        return None

    def _failed(self, error: kvx.Error) -> Outcome | None:
        if self._stage in (_Stage.ASKING, _Stage.TELLING):
            return self._give_up(error)
        if self._stage is _Stage.FENCING:
            self._stage = _Stage.WAITING
            return None
        if isinstance(error, kvx.RefusedError) and not self._is_second:
            # The target has registered its memory anew, perhaps, since it was asked.
            self._is_second = True
            return self._begin(_Stage.ASKING)
        self._give_up(error)
        if isinstance(error, kvx.DeadlineError):
            self._failure = Outcome.TIMED_OUT
        if isinstance(error, kvx.PeerError):
            self._by.peers.forget(self._order.target, self._peer)
        if self._order.op is kvx.Op.READ or error.status in _NOTHING_LANDS:
            return self._failure
        return self._begin(_Stage.FENCING)

    def _begin(self, stage: _Stage) -> Outcome | None:
        """The answer of the peer says, besides what it says, that it has heard all before."""
        self._stage = stage
        try:
            self._operation = self._peer.published()
        except kvx.Error as error:
            return self._failed(error)
        return None

    def _post_again(self, peer: kvx.Peer) -> Outcome | None:
        """The peer has said which regions it has."""
        self._stage = _Stage.MOVING
        try:
            self._peer = self._post_to(self._by.peers.learn(self._order.target, peer))
        except kvx.Error as error:
            return self._give_up(error)
        return None

    def _give_up(self, error: kvx.Error) -> Outcome:
        LOG.error("%s failed: %s", self._order, error)
        return Outcome.FAILED

    def _release(self) -> None:
        """Lets go of memory that was registered for this transfer alone."""
        region, self._borrowed = self._borrowed, None
        if region is not None:
            self._by.memory.give_back(region)


class _Stage(enum.Enum):
    """What a transfer waits for."""

    #: The data, with the notification of a WRITE; else a notification alone, or the connection.
    MOVING = 0
    #: That the target has the notification of a READ.
    TELLING = 1
    #: Which regions the target has now.
    ASKING = 2
    #: That the target has heard of the failure.
    FENCING = 3
    #: The deadline.
    WAITING = 4


# The target has confirmed that nothing lands any more, or forgotten all, or enforced the deadline.
_NOTHING_LANDS = frozenset(
    {
        kvx.Status.DEADLINE,
        kvx.Status.CANCELLED,
        kvx.Status.CANCELLED_UNFENCED,
        kvx.Status.REFUSED,
        kvx.Status.PEER_RESTARTED,
        kvx.Status.PEER_CLOSED,
        kvx.Status.PEER_RESET,
        # The data is there; only of the notification it is not known.
        kvx.Status.DELIVERY_UNKNOWN,
    }
)

# Deadlines are of the engine's own clock: the Python side waits a little longer.
_GRACE = 0.05
# Lengths that nobody can mean must not overflow a time.
_LONGEST = 10.0**9
