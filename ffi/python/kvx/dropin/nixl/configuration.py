"""The configuration of an agent, as `nixl._bindings` has it."""

from __future__ import annotations

import datetime

from kvx.dropin.nixl.names import DEFAULT_COMM_PORT, nixl_thread_sync_t
from kvx.dropin.nixl.texts import number

_PORTS = (1 << 16) - 1
_WORD = (1 << 64) - 1


class nixlAgentConfig:
    """How an agent is set up. Delays and sync modes mean nothing here: agents sleep until something
    happens, and any thread may use them."""

    __slots__ = (
        "_capture",
        "_listen",
        "_listen_delay",
        "_port",
        "_progress",
        "_progress_delay",
        "_sync",
        "_watch",
    )

    def __init__(
        self,
        use_prog_thread: bool = False,
        use_listen_thread: bool = False,
        port: int = DEFAULT_COMM_PORT,
        sync_mode: nixl_thread_sync_t = nixl_thread_sync_t.NIXL_THREAD_SYNC_NONE,
        num_workers: int = 1,
        pthr_delay: int = 0,
        lthr_delay: int = 100_000,
        capture_telemetry: bool = False,
    ) -> None:
        self.useProgThread = use_prog_thread
        self.useListenThread = use_listen_thread
        self.listenPort = port
        self.syncMode = sync_mode
        number("num_workers", num_workers, _WORD)
        self.pthrDelay = pthr_delay
        self.lthrDelay = lthr_delay
        self.captureTelemetry = capture_telemetry
        self._watch = datetime.timedelta(seconds=5)

    @property
    def useProgThread(self) -> bool:
        """Whether something moves when nobody calls; it does in any case."""
        return self._progress

    @useProgThread.setter
    def useProgThread(self, value: bool) -> None:
        self._progress = _flag(value)

    @property
    def useListenThread(self) -> bool:
        """Whether the agent has a listener for metadata."""
        return self._listen

    @useListenThread.setter
    def useListenThread(self, value: bool) -> None:
        self._listen = _flag(value)

    @property
    def listenPort(self) -> int:
        """The listener's port."""
        return self._port

    @listenPort.setter
    def listenPort(self, value: int) -> None:
        self._port = number("listenPort", value, _PORTS)

    @property
    def syncMode(self) -> nixl_thread_sync_t:
        """How the agent is kept safe from threads."""
        return self._sync

    @syncMode.setter
    def syncMode(self, value: nixl_thread_sync_t) -> None:
        if not isinstance(value, nixl_thread_sync_t):
            raise TypeError(f"syncMode: expected nixl_thread_sync_t, not {value!r}")
        self._sync = value

    @property
    def pthrDelay(self) -> int:
        """NIXL's pause between polls, in microseconds."""
        return self._progress_delay

    @pthrDelay.setter
    def pthrDelay(self, value: int) -> None:
        self._progress_delay = number("pthrDelay", value, _WORD)

    @property
    def lthrDelay(self) -> int:
        """NIXL's pause between looks at its listener, in microseconds."""
        return self._listen_delay

    @lthrDelay.setter
    def lthrDelay(self, value: int) -> None:
        self._listen_delay = number("lthrDelay", value, _WORD)

    @property
    def captureTelemetry(self) -> bool:
        """Whether transfers are measured."""
        return self._capture

    @captureTelemetry.setter
    def captureTelemetry(self, value: bool) -> None:
        self._capture = _flag(value)

    @property
    def etcdWatchTimeout(self) -> datetime.timedelta:
        """How long NIXL waits for etcd."""
        return self._watch

    @etcdWatchTimeout.setter
    def etcdWatchTimeout(self, value: datetime.timedelta) -> None:
        if not isinstance(value, datetime.timedelta):
            raise TypeError(f"etcdWatchTimeout: expected a timedelta, not {value!r}")
        self._watch = value


def _flag(value: object) -> bool:
    if isinstance(value, (bool, int)):
        return bool(value)
    raise TypeError(f"expected a bool, not {value!r}")
