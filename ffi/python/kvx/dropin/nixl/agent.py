"""An agent, as `nixl._bindings` has it: an engine, its memory, the agents that it knows, transfers.

Numbers stand for backends, lists and transfers; none is given twice, so that one that was released
is an error and never something else.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

import kvx
from kvx import Engine, Spans
from kvx.dropin.nixl.configuration import nixlAgentConfig
from kvx.dropin.nixl.descriptors import (
    Table,
    nixlRegDList,
    nixlRemoteDList,
    nixlXferDList,
    table_of,
)
from kvx.dropin.nixl.envelope import Envelope
from kvx.dropin.nixl.errors import (
    failure,
    in_nixls_words,
    nixlBackendError,
    nixlInvalidParamError,
    nixlNotAllowedError,
    nixlNotFoundError,
    nixlNotSupportedError,
)
from kvx.dropin.nixl.inbox import Inbox
from kvx.dropin.nixl.indices import indices
from kvx.dropin.nixl.letters import heading
from kvx.dropin.nixl.listener import Listener
from kvx.dropin.nixl.log import get_logger
from kvx.dropin.nixl.names import nixl_mem_t, nixl_status_t, nixl_xfer_op_t
from kvx.dropin.nixl.registrations import Registrations
from kvx.dropin.nixl.remotes import Remote, Remotes
from kvx.dropin.nixl.requests import Request, no_telemetry
from kvx.dropin.nixl.settings import captures_telemetry, open_engine
from kvx.dropin.nixl.strides import expanded
from kvx.dropin.nixl.telemetry import nixlXferTelemetry
from kvx.dropin.nixl.texts import number, octets, text

logger = get_logger("kvx")

#: The backend that kvx stands in for: what callers ask for who ask for none.
BACKEND = "UCX"
#: What its memory may be.
MEMORIES = (nixl_mem_t.DRAM_SEG,)
#: Its options and their defaults.
PARAMS = {"num_threads": "0", "device_list": "", "ucx_devices": ""}

_SUCCESS = nixl_status_t.NIXL_SUCCESS
_PORTS = (1 << 16) - 1

_numbers = itertools.count(0x1000)


class _Side(NamedTuple):
    """A prepared list of one side."""

    spans: Spans
    #: Whether it is memory of this agent, as the initiator.
    local: bool
    #: Whose memory it is; `None`: this agent's.
    remote: Remote | None


class _Parts(NamedTuple):
    """What an agent has since its backend is there."""

    engine: Engine
    memory: Registrations
    remotes: Remotes
    inbox: Inbox


class nixlAgent:
    """An agent. Any thread may use it."""

    __slots__ = (
        "__weakref__",
        "_backend",
        "_heading",
        "_listener",
        "_lock",
        "_name",
        "_params",
        "_parts",
        "_requests",
        "_sides",
        "_telemetry",
    )

    def __init__(self, name: str, config: nixlAgentConfig) -> None:
        self._name = text("agent", name)
        if not isinstance(config, nixlAgentConfig):
            raise TypeError(f"config: expected nixlAgentConfig, not {config!r}")
        if not self._name:
            raise ValueError("an agent needs a name")
        self._heading = heading(self._name)
        self._telemetry = captures_telemetry(config.captureTelemetry)
        self._lock = threading.Lock()
        self._backend = 0
        self._params: dict[str, str] = {}
        self._parts: _Parts | None = None
        self._sides: dict[int, _Side] = {}
        self._requests: dict[int, Request] = {}
        self._listener = Listener(self)
        if config.useListenThread:
            self._listener.listen(config.listenPort)

    # Backends.

    def getAvailPlugins(self) -> list[str]:
        """The backends that there are."""
        return [BACKEND]

    def getPluginParams(self, name: str) -> tuple[dict[str, str], list[str]]:
        """A backend's options with their defaults, and what its memory may be."""
        self._plugin(name)
        return dict(PARAMS), [memory.name for memory in MEMORIES]

    def getBackendParams(self, backend: int) -> tuple[dict[str, str], list[str]]:
        """The options of a backend that was created, and what its memory may be."""
        self._backends([backend])
        return dict(self._params), [memory.name for memory in MEMORIES]

    def createBackend(self, name: str, params: Mapping[str, str]) -> int:
        """Opens the agent's engine."""
        if not isinstance(name, (str, bytes)) or not isinstance(params, Mapping):
            raise TypeError("expected the name of a backend and its options")
        given = {text("option", key): text("option", value) for key, value in params.items()}
        self._plugin(name)
        with self._lock:
            if self._parts is not None:
                raise failure(nixlInvalidParamError, f"backend {BACKEND} was created before")
            with in_nixls_words():
                engine = open_engine(self._name, given)
            remotes = Remotes(engine, self._name)
            inbox = Inbox(engine, self._name, remotes)
            self._params = given
            self._backend = next(_numbers)
            self._parts = _Parts(engine, Registrations(engine), remotes, inbox)
        return self._backend

    def _plugin(self, name: object) -> None:
        if text("backend", name) != BACKEND:
            raise failure(nixlNotFoundError, f"backend {name!r} is not available")

    def _backends(self, backends: Iterable[int]) -> None:
        """Raises unless these are backends of this agent."""
        for backend in backends:
            if number("backend", backend, (1 << 64) - 1) != self._backend or not self._backend:
                raise failure(nixlInvalidParamError, f"backend {backend} is none of this agent")

    def _with(self, missing: type[Exception], what: str) -> _Parts:
        if self._parts is None:
            raise failure(missing, f"{what}: this agent has no backend")
        return self._parts

    # Own memory.

    def registerMem(self, descs: nixlRegDList, backends: Sequence[int] = ()) -> nixl_status_t:
        """Registers memory."""
        _expect(nixlRegDList, descs)
        self._backends(backends)
        parts = self._with(nixlNotFoundError, "register")
        if descs.getType() not in MEMORIES:
            raise _no_memory(descs.getType())
        if descs.isEmpty():
            raise failure(nixlBackendError, "register: no memory")
        parts.memory.add(descs)
        return _SUCCESS

    def deregisterMem(self, descs: nixlRegDList, backends: Sequence[int] = ()) -> nixl_status_t:
        """Deregisters memory: when it returns, nothing lands there, and nothing is read there."""
        _expect(nixlRegDList, descs)
        self._backends(backends)
        self._with(nixlNotFoundError, "deregister").memory.remove(descs)
        return _SUCCESS

    def queryMem(self, descs: nixlRegDList, backend: int) -> list[dict[str, str] | None]:
        """What a backend for storage knows of its memory; this one is none."""
        _expect(nixlRegDList, descs)
        self._backends([backend])
        raise failure(nixlNotSupportedError, "kvx has no storage to be queried")

    # Lists of one side.

    def prepXferDlist(self, *given: Any, **named: Any) -> int:
        """Prepares a list: `(descs)` or `("", descs)` of this side, `(agent, descs)` of another's,
        `(agent, mem_type, runs)` of strided runs."""
        for order in (("agent_name", "descs"), ("descs",), ("agent_name", "mem_type", "descs")):
            names = (*order, "backend")
            if len(given) > len(names) or any(key not in names for key in named):
                continue
            call = {**dict(zip(names, given)), **named}
            if len(call) < len(given) + len(named) or not all(name in call for name in order):
                continue
            descs, wanted = call["descs"], nixlXferDList
            if "mem_type" in order:
                if isinstance(call["mem_type"], nixl_mem_t) and _is_array(descs):
                    table = expanded(table_of(descs, 5))
                    return self._prepare(call, call["mem_type"], table)
            elif isinstance(descs, wanted):
                return self._prepare(call, descs.getType(), descs.table())
        raise TypeError("expected an agent's name and a list of descriptors")

    def _prepare(self, call: dict[str, Any], kind: nixl_mem_t, table: Table) -> int:
        agent = text("agent", call.get("agent_name", ""))
        self._backends(call.get("backend", ()))
        side = self._side(agent, kind, table)
        handle = next(_numbers)
        self._sides[handle] = side
        return handle

    def _side(self, agent: str, kind: nixl_mem_t, table: Table) -> _Side:
        parts = self._with(nixlNotFoundError, "prepare")
        if len(table) == 0:
            raise failure(nixlNotFoundError, "prepare: no descriptors")
        if kind not in MEMORIES:
            raise _no_memory(kind)
        if agent == "":
            return _Side(parts.memory.spans(kind, table), True, None)
        if agent == self._name:
            return _Side(parts.memory.spans_of_myself(kind, table), False, None)
        remote = parts.remotes.get(agent)
        return _Side(remote.spans(kind, table), False, remote)

    def releasedDlistH(self, handle: int) -> nixl_status_t:
        """Releases a prepared list. Transfers that were made of it stay."""
        side = self._sides.pop(handle, None)
        if side is None:
            raise failure(nixlInvalidParamError, f"{handle} is no prepared list of this agent")
        side.spans.release()
        return _SUCCESS

    def prepMemView(
        self, dlist: nixlXferDList | nixlRemoteDList, backends: Sequence[int] = ()
    ) -> int:
        """Memory as kernels on a GPU see it; there is none."""
        if not isinstance(dlist, (nixlXferDList, nixlRemoteDList)):
            raise TypeError("expected a list of descriptors")
        self._backends(backends)
        raise failure(nixlBackendError, "kvx offers no memory to kernels on a GPU")

    def releaseMemView(self, mvh: int) -> None:
        """Releases what `prepMemView` gave."""
        raise failure(nixlInvalidParamError, f"{mvh} is no view of memory")

    # Transfers.

    def makeXferReq(
        self,
        operation: nixl_xfer_op_t,
        local_side: int,
        local_indices: object,
        remote_side: int,
        remote_indices: object,
        notif_msg: object = b"",
        backend: Sequence[int] = (),
        skip_desc_merg: bool = False,
    ) -> int:
        """A transfer of chosen descriptors of two prepared lists, one with another in order."""
        _expect(nixl_xfer_op_t, operation)
        notification = self._letter(notif_msg)
        self._backends(backend)
        local, remote = self._sides.get(local_side), self._sides.get(remote_side)
        if local is None or remote is None:
            raise failure(nixlInvalidParamError, "a prepared list was released, or never was")
        if not local.local or remote.local:
            raise failure(nixlInvalidParamError, "expected a list of this side, and one of another")
        ours, theirs = (
            indices("local_indices", local_indices),
            indices("remote_indices", remote_indices),
        )
        if len(ours) == 0:
            raise failure(nixlInvalidParamError, "a transfer of no descriptors")
        told = len(ours) if skip_desc_merg else None
        return self._request(operation, local, remote, (ours, theirs), notification, told)

    def createXferReq(
        self,
        operation: nixl_xfer_op_t,
        local_descs: nixlXferDList,
        remote_descs: nixlXferDList,
        remote_agent: str,
        notif_msg: object = b"",
        backend: Sequence[int] = (),
    ) -> int:
        """A transfer of all descriptors of two lists, one with another in order."""
        _expect(nixl_xfer_op_t, operation)
        _expect(nixlXferDList, local_descs)
        _expect(nixlXferDList, remote_descs)
        agent, notification = text("agent", remote_agent), self._letter(notif_msg)
        self._backends(backend)
        if local_descs.descCount() != remote_descs.descCount():
            counts = f"{local_descs.descCount()} local against {remote_descs.descCount()} remote"
            raise failure(nixlInvalidParamError, f"descriptors: {counts}")
        if agent == "":
            raise failure(nixlNotFoundError, "the other agent's name is empty")
        local = self._side("", local_descs.getType(), local_descs.table())
        remote = self._side(agent, remote_descs.getType(), remote_descs.table())
        return self._request(operation, local, remote, None, notification, None)

    def _request(
        self,
        operation: nixl_xfer_op_t,
        local: _Side,
        remote: _Side,
        chosen: tuple[NDArray[Any], NDArray[Any]] | None,
        notification: bytes | None,
        descriptors: int | None,
    ) -> int:
        parts = self._with(nixlNotFoundError, "transfer")
        if remote.remote is not None:
            remote.remote.check()
        op = "READ" if operation is nixl_xfer_op_t.NIXL_READ else "WRITE"
        ours, theirs = chosen or (None, None)
        with in_nixls_words():
            prepared = kvx.prepare(op, local.spans, remote.spans, ours, theirs)
        handle = next(_numbers)
        self._requests[handle] = Request(
            prepared, remote.remote, notification, descriptors, parts.remotes.failed
        )
        return handle

    def postXferReq(self, handle: int, notif_msg: object = b"") -> nixl_status_t:
        """Posts a transfer."""
        return self._found(handle).post(self._letter(notif_msg))

    def getXferStatus(self, handle: int) -> nixl_status_t:
        """Whether a transfer is done."""
        request = self._requests.get(handle) or self._found(handle)
        return request.last.status()

    def getXferTelemetry(self, handle: int) -> nixlXferTelemetry:
        """What a transfer took."""
        request = self._found(handle)
        if not self._telemetry:
            raise no_telemetry()
        return request.telemetry()

    def queryXferBackend(self, handle: int) -> int:
        """The backend that moves it."""
        self._found(handle)
        return self._backend

    def estimateXferCost(self, handle: int) -> tuple[int, int, int]:
        """Microseconds that a transfer should take, their margin, and the method."""
        return self._found(handle).cost(), 0, 0

    def releaseXferReq(self, handle: int) -> nixl_status_t:
        """Releases a transfer; one that is under way is given up first."""
        self._found(handle).release()
        self._requests.pop(handle, None)
        return _SUCCESS

    def abandon(self, handle: int) -> None:
        """Gives a transfer or a list up whose last holder is gone; waits for nothing."""
        request = self._requests.pop(handle, None)
        if request is not None:
            request.abandon()
        self._sides.pop(handle, None)

    def _found(self, handle: int) -> Request:
        if not isinstance(handle, int):
            raise TypeError(f"expected the number of a transfer, not {handle!r}")
        request = self._requests.get(handle)
        if request is None:
            raise failure(nixlInvalidParamError, f"{handle} is no transfer of this agent")
        return request

    # Notifications.

    def _letter(self, message: object) -> bytes | None:
        """A message as it travels; none if it is empty, as messages of transfers are that have
        none."""
        given = octets("notif_msg", message)
        return self._heading + given if given else None

    def genNotif(
        self, remote_agent: str, msg: object, backends: Sequence[int] = ()
    ) -> nixl_status_t:
        """Tells an agent something by itself."""
        agent, message = text("agent", remote_agent), octets("msg", msg)
        self._backends(backends)
        parts = self._with(nixlBackendError, "notify")
        parts.inbox.send(agent, self._heading + message)
        return _SUCCESS

    def getNotifs(
        self, notif_map: Mapping[str, Sequence[bytes]], backends: Sequence[int] = ()
    ) -> dict[str, list[bytes]]:
        """What has come, behind what the map has."""
        if backends:
            self._backends(backends)
        parts = self._parts or self._with(nixlBackendError, "notifications")
        got = {name: list(messages) for name, messages in notif_map.items()} if notif_map else {}
        parts.inbox.take(got)
        return got

    # Metadata.

    def getLocalMD(self) -> bytes:
        """All that others need to reach this agent and its memory. Keep it from strangers: who
        holds it may connect."""
        parts = self._with(nixlInvalidParamError, "metadata")
        kinds, blob = parts.memory.metadata(parts.memory.all())
        return Envelope(self._name, True, True, kinds, blob).encode()

    def getLocalPartialMD(
        self, descs: nixlRegDList, inc_conn_info: bool = False, backends: Sequence[int] = ()
    ) -> bytes:
        """The same of some of its memory, for agents that know it already or not yet."""
        _expect(nixlRegDList, descs)
        self._backends(backends)
        parts = self._with(nixlInvalidParamError, "metadata")
        kinds, blob = parts.memory.metadata(parts.memory.chosen(descs))
        return Envelope(self._name, bool(inc_conn_info), False, kinds, blob).encode()

    def loadRemoteMD(self, metadata: object) -> bytes:
        """Adds an agent, or what it tells besides; its name."""
        given = octets("metadata", metadata)
        name = self._with(nixlNotFoundError, "add an agent").remotes.add(given)
        return octets("agent", name)

    def invalidateRemoteMD(self, agent: str) -> nixl_status_t:
        """Forgets an agent; no transfer with it moves anything when this returns."""
        name = text("agent", agent)
        if self._parts is not None and self._parts.remotes.remove(name):
            return _SUCCESS
        return nixl_status_t.NIXL_ERR_NOT_FOUND

    def checkRemoteMD(self, agent: str, descs: nixlXferDList) -> nixl_status_t:
        """Whether an agent is known, with this memory."""
        _expect(nixlXferDList, descs)
        name, parts = text("agent", agent), self._parts
        remote = parts.remotes.known(name) if parts is not None else None
        if remote is None:
            return nixl_status_t.NIXL_ERR_NOT_FOUND
        if not descs.isEmpty() and not remote.has(descs.getType(), descs.table()):
            return nixl_status_t.NIXL_ERR_NOT_FOUND
        return _SUCCESS

    def makeConnection(self, agent: str, backends: Sequence[int] = ()) -> nixl_status_t:
        """Waits until an agent is connected."""
        name = text("agent", agent)
        self._backends(backends)
        parts = self._with(nixlNotFoundError, "connect")
        remote = parts.remotes.get(name)
        try:
            remote.peer.ready().wait()
        except kvx.Error as error:
            raise parts.remotes.failed(remote, error) from error
        return _SUCCESS

    # Metadata over listeners.

    def sendLocalMD(self, ip_addr: str = "", port: int = 0) -> None:
        """Sends all metadata to the listener of another agent."""
        self._listener.tell(*_place(ip_addr, port), self.getLocalMD())

    def sendLocalPartialMD(
        self,
        descs: nixlRegDList,
        inc_conn_info: bool = False,
        backends: Sequence[int] = (),
        ip_addr: str = "",
        port: int = 0,
        label: str = "",
    ) -> None:
        """Sends metadata of some memory to the listener of another agent."""
        text("label", label)
        _expect(nixlRegDList, descs)
        place = _place(ip_addr, port)
        self._listener.tell(*place, self.getLocalPartialMD(descs, inc_conn_info, backends))

    def fetchRemoteMD(
        self, remote_agent: str, ip_addr: str = "", port: int = 0, label: str = ""
    ) -> None:
        """Asks the listener of another agent for its metadata, which is added when it comes."""
        agent = text("agent", remote_agent)
        text("label", label)
        self._listener.ask(*_place(ip_addr, port), agent)

    def invalidateLocalMD(self, ip_addr: str = "", port: int = 0) -> None:
        """Asks the listener of another agent to forget this one."""
        place = _place(ip_addr, port)
        parts = self._with(nixlInvalidParamError, "metadata")
        kinds, blob = parts.memory.metadata([])
        envelope = Envelope(self._name, True, False, kinds, blob)
        self._listener.take_back(*place, envelope.encode())

    def forget_if_same(self, metadata: bytes) -> None:
        """Forgets the agent that this metadata is of, in that life of it."""
        envelope = Envelope.decode(metadata)
        remotes = self._with(nixlNotFoundError, "forget").remotes
        remote = remotes.known(envelope.agent)
        if remote is None or remote.identity != envelope.identity:
            raise failure(nixlNotAllowedError, f"{envelope.agent} is not known in that life")
        remotes.remove(envelope.agent)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._name


def _place(ip_addr: object, port: object) -> tuple[str, int]:
    """Where a listener is."""
    host, place = text("ip_addr", ip_addr), number("port", port, _PORTS)
    if not host:
        raise failure(nixlInvalidParamError, "there is no etcd: say the listener's ip_addr")
    return host, place


def _expect(kind: type[Any], value: object) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")


def _is_array(value: object) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "flags")


def _no_memory(kind: nixl_mem_t) -> Exception:
    return failure(nixlNotFoundError, f"no backend for memory of {kind.name}")
