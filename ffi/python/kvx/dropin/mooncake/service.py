"""What a TransferEngine is between two calls of `initialize`: an engine and what it keeps."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import kvx
from kvx.dropin.mooncake import addresses
from kvx.dropin.mooncake.addresses import Endpoint
from kvx.dropin.mooncake.batches import Batches
from kvx.dropin.mooncake.memory import Memory
from kvx.dropin.mooncake.peers import Peers
from kvx.dropin.mooncake.settings import LOG
from kvx.dropin.mooncake.transfers import Transfers
from kvx.dropin.mooncake.values import decode

if TYPE_CHECKING:
    from kvx.dropin.mooncake.settings import Settings
    from kvx.dropin.mooncake.values import TransferNotify


class Service:
    """An engine that listens, with its memory, peers and batches."""

    def __init__(self, host: str, settings: Settings) -> None:
        """Listens at the address of `host`, or the one that the environment says instead.

        Raises:
            kvx.Error, OSError: it cannot be listened there.
        """
        self.settings = settings
        self._process = os.getpid()
        self.engine = _listen(host, settings)
        ip, port = addresses.split(self.engine.address)
        self.port = port or 0
        own = Endpoint(ip, self.port)
        self.name = addresses.join(host, self.port)
        self.memory = Memory(self.engine)
        self.peers = Peers(self.engine, own, settings)
        self.batches = Batches()
        self.transfers = Transfers(self.engine, self.memory, self.peers, settings)

    @property
    def is_here(self) -> bool:
        """Whether this is the process that made it: an engine's threads do not cross a fork."""
        return os.getpid() == self._process

    def notifies(self) -> list[TransferNotify]:
        """All that has come and was not taken before, in the order in which it came."""
        taken: list[TransferNotify] = []
        while True:
            try:
                notification = self.engine.poll_notification()
            except kvx.Error as error:
                # Closed meanwhile, perhaps.
                LOG.warning("get_notifies: %s", error)
                return taken
            if notification is None:
                return taken
            notify = decode(notification.data)
            if notify is None:
                LOG.warning("%s: a notification that is none of Mooncake's", notification.peer)
            else:
                taken.append(notify)

    def close(self) -> None:
        """Nothing lands in its memory any more, and nobody reaches it."""
        self.engine.close()


def _listen(host: str, settings: Settings) -> kvx.Engine:
    chosen = addresses.resolve(settings.bind or host, 0, settings.ipv6)[0].ip
    advertise = None
    if settings.bind is not None and not os.environ.get("KVX_ADVERTISE"):
        advertise = _advertised(host, settings)
    ports = random.sample(settings.ports, len(settings.ports))
    failure: Exception = OSError(f"every port of {settings.ports} is taken at {chosen}")
    for port in ports:
        place = Endpoint(chosen, port)
        if not addresses.is_free(place):
            continue
        try:
            return kvx.Engine(
                addresses.engine_name(place),
                bind=str(place),
                advertise=advertise,
                log=settings.engine_log,
            )
        except kvx.IoError as error:
            if addresses.is_free(place):
                raise
            # Somebody was faster.
            failure = error
    raise failure


def _advertised(host: str, settings: Settings) -> str | None:
    """Where peers find an engine that listens elsewhere than at the host that it was given."""
    try:
        return addresses.resolve(host, 0, settings.ipv6)[0].ip
    except addresses.UnresolvedError as error:
        LOG.warning("peers are not told the host: %s", error)
        return None
