"""Notifications to and from other agents."""

from __future__ import annotations

import threading
from collections import deque

import kvx
from kvx import BusyError, Engine, Operation, Peer
from kvx.dropin.nixl.errors import failure, nixlNotFoundError, translated
from kvx.dropin.nixl.letters import opened
from kvx.dropin.nixl.log import get_logger
from kvx.dropin.nixl.remotes import Remote, Remotes

logger = get_logger("kvx")

# Characters of what a peer says that are logged.
_SHOWN = 100


class Inbox:
    """What comes and goes by itself. Used from many threads."""

    def __init__(self, engine: Engine, myself: str, remotes: Remotes) -> None:
        self._engine = engine
        self._poll = engine.poll_notification
        self._myself = myself
        self._remotes = remotes
        self._lock = threading.Lock()
        # Not known yet to have arrived, and to whom.
        self._sent: deque[tuple[Operation[None], Remote]] = deque()

    def take(self, into: dict[str, list[bytes]]) -> None:
        """Adds what has come, in its order, by the names of who sent it.

        Raises:
            nixlBackendError: nothing was taken, and something cannot be.
        """
        took = False
        try:
            if not self._engine.waiting_notifications:
                return
            while (notification := self._poll()) is not None:
                took = True
                letter = opened(notification.data)
                if letter is None:
                    logger.warning("%s is no agent; its notification is dropped", notification.peer)
                elif self._is_another(letter.sender, notification.engine):
                    logger.warning(
                        "%s calls itself %r, which another agent is; its notification is dropped",
                        notification.peer,
                        letter.sender[:_SHOWN],
                    )
                else:
                    into.setdefault(letter.sender, []).append(letter.message)
        except kvx.Error as error:
            if not took:
                raise translated(error) from error
            # What was taken is in no other place.
            logger.error("A notification could not be taken: %s", error)

    def _is_another(self, name: str, engine_id: bytes) -> bool:
        """Whether this name is known of another engine."""
        if name == self._myself:
            return engine_id != self._engine.id
        remote = self._remotes.known(name)
        return remote is not None and remote.engine_id != engine_id

    def send(self, agent: str, letter: bytes) -> None:
        """Sends a notification, which leaves by itself.

        Raises:
            nixlNotFoundError: an agent that is not known.
            nixlBackendError: it has taken too few of those before.
        """
        remote = None
        if agent == self._myself:
            peer = self._engine.myself()
        else:
            remote = self._remotes.get(agent)
            peer = remote.peer
        if not agent:
            raise failure(nixlNotFoundError, "the agent's name is empty")
        self._look()
        try:
            try:
                sent = _sent(peer, letter)
            except BusyError:
                # Little may be out to an agent that has not said yet how much it takes.
                if peer.connected:
                    raise
                peer.ready().wait()
                sent = _sent(peer, letter)
        except kvx.Error as error:
            raise (self._remotes.failed(remote, error) if remote else translated(error)) from error
        if sent is not None and remote is not None:
            with self._lock:
                self._sent.append((sent, remote))

    def _look(self) -> None:
        """Says which of those sent before were lost: who sent them cannot be told any more."""
        with self._lock:
            while self._sent and self._sent[0][0].done:
                sent, remote = self._sent.popleft()
                try:
                    sent.result()
                except kvx.Error as error:
                    lost = self._remotes.failed(remote, error)
                    logger.warning("A notification to %s was lost: %s", remote.name, lost)


def _sent(peer: Peer, letter: bytes) -> Operation[None] | None:
    """Sends a notification; the operation that goes on, if it does."""
    sent = peer.notify(letter)
    if not sent.done:
        return sent
    sent.result()
    return None
