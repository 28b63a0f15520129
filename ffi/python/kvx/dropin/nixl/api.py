"""What callers use of NIXL: `nixl_agent` and its configuration, the module `nixl._api`."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from kvx.dropin.nixl import bindings as nixlBind
from kvx.dropin.nixl.configuration import nixlAgentConfig
from kvx.dropin.nixl.conversion import MEMORIES, descriptors
from kvx.dropin.nixl.descriptors import nixlRegDList, nixlRemoteDList, nixlXferDList
from kvx.dropin.nixl.errors import nixlNotFoundError
from kvx.dropin.nixl.handles import nixl_prepped_dlist_handle, nixl_xfer_handle
from kvx.dropin.nixl.log import get_logger
from kvx.dropin.nixl.names import DEFAULT_COMM_PORT, nixl_status_t, nixl_xfer_op_t
from kvx.dropin.nixl.names import nixl_thread_sync_t as _SyncMode
from kvx.dropin.nixl.serialized import Serializable, decode, encode
from kvx.dropin.nixl.telemetry import nixlXferTelemetry

__all__ = [
    "DEFAULT_COMM_PORT",
    "logger",
    "nixlBind",
    "nixl_agent",
    "nixl_agent_config",
    "nixl_backend_handle",
    "nixl_prepped_dlist_handle",
    "nixl_thread_sync_t",
    "nixl_xfer_handle",
]

logger = get_logger("_api")

nixl_backend_handle = int

_SUCCESS = nixl_status_t.NIXL_SUCCESS

L = TypeVar("L")


class nixl_thread_sync_t(enum.Enum):
    """How an agent is kept safe from threads. Agents here always are."""

    NIXL_THREAD_SYNC_NONE = _SyncMode.NIXL_THREAD_SYNC_NONE
    NIXL_THREAD_SYNC_STRICT = _SyncMode.NIXL_THREAD_SYNC_STRICT
    NIXL_THREAD_SYNC_RW = _SyncMode.NIXL_THREAD_SYNC_RW
    NIXL_THREAD_SYNC_DEFAULT = _SyncMode.NIXL_THREAD_SYNC_NONE


class nixl_agent_config:
    """How an agent is set up.

    Args:
        enable_prog_thread: means nothing here: everything moves when nobody calls, too.
        enable_listen_thread: whether the agent has a listener for metadata.
        listen_port: the listener's port.
        capture_telemetry: whether transfers are measured.
        num_threads: threads that move bytes; 0: as the engine likes it.
        backends: which backends are created with the agent.
        sync_mode: means nothing here: any thread may use an agent.
    """

    def __init__(
        self,
        enable_prog_thread: bool = True,
        enable_listen_thread: bool = False,
        listen_port: int = DEFAULT_COMM_PORT,
        capture_telemetry: bool = False,
        num_threads: int = 0,
        backends: list[str] = ["UCX"],  # noqa: B006
        sync_mode: nixl_thread_sync_t | None = None,
    ) -> None:
        if sync_mode is not None and not isinstance(sync_mode, nixl_thread_sync_t):
            raise TypeError(f"sync_mode must be a nixl_thread_sync_t, not {sync_mode!r}")
        self.backends = backends
        self.enable_pthread = enable_prog_thread
        self.enable_listen = enable_listen_thread
        self.port = listen_port
        self.capture_telemetry = capture_telemetry
        self.num_threads = num_threads
        self.sync_mode = sync_mode


class nixl_agent:
    """An agent: it registers memory, knows other agents, and moves bytes to and from theirs.

    Any thread may use it. `agent` is the lower class under it.
    """

    def __init__(
        self,
        agent_name: str,
        nixl_conf: nixl_agent_config | None = None,
        instantiate_all: bool = False,
    ) -> None:
        config = nixl_conf if nixl_conf is not None else nixl_agent_config()
        sync = config.sync_mode or nixl_thread_sync_t.NIXL_THREAD_SYNC_NONE
        self.agent = nixlBind.nixlAgent(
            agent_name,
            nixlAgentConfig(
                config.enable_pthread,
                config.enable_listen,
                config.port,
                sync.value,
                capture_telemetry=bool(config.capture_telemetry),
            ),
        )
        self.name = agent_name
        self.notifs: dict[str, list[bytes]] = {}
        self.backends: dict[str, int] = {}
        self.backend_mems: dict[str, list[str]] = {}
        self.backend_options: dict[str, dict[str, str]] = {}
        self.plugin_list = self.agent.getAvailPlugins()
        self.nixl_mems = dict(MEMORIES)
        self.nixl_ops = {
            "WRITE": nixl_xfer_op_t.NIXL_WRITE,
            "READ": nixl_xfer_op_t.NIXL_READ,
        }
        params = {"num_threads": str(config.num_threads)} if config.num_threads else {}
        for backend in self.plugin_list if instantiate_all else config.backends:
            if backend not in self.plugin_list:
                logger.warning(
                    "Backend %s is not available; there is %s", backend, self.plugin_list
                )
            else:
                self.create_backend(backend, params)

    # Backends.

    def get_plugin_list(self) -> list[str]:
        """The backends that there are."""
        return self.plugin_list

    def get_plugin_mem_types(self, backend: str) -> list[str]:
        """What a backend's memory may be."""
        return self._plugin(backend)[1]

    def get_plugin_params(self, backend: str) -> dict[str, str]:
        """A backend's options with their defaults."""
        return self._plugin(backend)[0]

    def _plugin(self, backend: str) -> tuple[dict[str, str], list[str]]:
        try:
            return self.agent.getPluginParams(backend)
        except nixlNotFoundError:
            logger.warning("Backend %s is not available", backend)
            return {}, []

    def get_backend_mem_types(self, backend: str) -> list[str]:
        """What the memory of a backend that was created may be."""
        return self._created(backend, self.backend_mems) or []

    def get_backend_params(self, backend: str) -> dict[str, str]:
        """The options of a backend that was created."""
        return self._created(backend, self.backend_options) or {}

    def _created(self, backend: str, known: Mapping[str, Any]) -> Any:
        if backend not in known:
            logger.warning("Backend %s was not created", backend)
        return known.get(backend)

    def create_backend(
        self,
        backend: str,
        initParams: dict[str, str] = {},  # noqa: B006
    ) -> None:
        """Creates a backend: opens the agent's engine."""
        created = self.agent.createBackend(backend, initParams)
        self.backends[backend] = created
        self.backend_options[backend], self.backend_mems[backend] = self.agent.getBackendParams(
            created
        )
        logger.info("Agent %s: backend %s was created, by kvx", self.name, backend)

    def _handles(self, backends: Iterable[str]) -> list[int]:
        return [self.backends[backend] for backend in backends]

    # Memory.

    def register_memory(
        self,
        reg_list: Any,
        mem_type: str | None = None,
        backends: list[str] = [],  # noqa: B006
    ) -> nixlRegDList:
        """Registers memory, in any form that `get_reg_descs` takes; it stays the caller's own."""
        descs = _made(self.get_reg_descs(reg_list, mem_type))
        self.agent.registerMem(descs, self._handles(backends))
        return descs

    def deregister_memory(
        self,
        dereg_list: nixlRegDList,
        backends: list[str] = [],  # noqa: B006
    ) -> None:
        """Deregisters memory: when it returns, nothing lands there, and nothing is read there."""
        self.agent.deregisterMem(dereg_list, self._handles(backends))

    def query_memory(
        self, reg_list: Any, backend: str, mem_type: str | None = None
    ) -> list[dict[str, str] | None]:
        """What a backend for storage knows of its memory."""
        descs = _made(self.get_reg_descs(reg_list, mem_type))
        if backend not in self.backends:
            raise ValueError(f"backend {backend} was not created")
        return self.agent.queryMem(descs, self.backends[backend])

    def make_connection(
        self,
        remote_agent: str,
        backends: list[str] = [],  # noqa: B006
    ) -> None:
        """Waits until an agent is connected. Transfers connect by themselves."""
        self.agent.makeConnection(remote_agent, self._handles(backends))

    # Transfers.

    def prep_xfer_dlist(
        self,
        agent_name: str,
        xfer_list: Any,
        mem_type: str | None = None,
        backends: list[str] = [],  # noqa: B006
    ) -> nixl_prepped_dlist_handle:
        """Prepares a list of places of one side: of this agent ("" or "NIXL_INIT_AGENT"), or of
        another. Besides what `get_xfer_descs` takes, a table of strided runs of five columns:
        address, length, device, stride, count."""
        handles = self._handles(backends)
        agent = "" if agent_name == "NIXL_INIT_AGENT" else agent_name
        if isinstance(xfer_list, np.ndarray) and xfer_list.ndim == 2 and xfer_list.shape[1] == 5:
            if mem_type is None:
                raise ValueError("mem_type: needed for a table")
            memory = self.nixl_mems[mem_type]
            made = self.agent.prepXferDlist(agent, memory, xfer_list, handles)
        else:
            descs = _made(self.get_xfer_descs(xfer_list, mem_type))
            made = self.agent.prepXferDlist(agent, descs, handles)
        return nixl_prepped_dlist_handle(self.agent, made)

    def make_prepped_xfer(
        self,
        operation: str,
        local_xfer_side: nixl_prepped_dlist_handle,
        local_indices: Any,
        remote_xfer_side: nixl_prepped_dlist_handle,
        remote_indices: Any,
        notif_msg: bytes = b"",
        backends: list[str] = [],  # noqa: B006
        skip_desc_merge: bool = False,
    ) -> nixl_xfer_handle:
        """A transfer of chosen places: `local_indices[i]` to or from `remote_indices[i]`."""
        op = self.nixl_ops[operation]
        made = self.agent.makeXferReq(
            op,
            local_xfer_side._handle,
            local_indices,
            remote_xfer_side._handle,
            remote_indices,
            notif_msg,
            self._handles(backends),
            skip_desc_merge,
        )
        return nixl_xfer_handle(self.agent, made)

    def initialize_xfer(
        self,
        operation: str,
        local_descs: nixlXferDList,
        remote_descs: nixlXferDList,
        remote_agent: str,
        notif_msg: bytes = b"",
        backends: list[str] = [],  # noqa: B006
    ) -> nixl_xfer_handle:
        """A transfer of all places of two lists, one with another in order."""
        op = self.nixl_ops[operation]
        made = self.agent.createXferReq(
            op, local_descs, remote_descs, remote_agent, notif_msg, self._handles(backends)
        )
        return nixl_xfer_handle(self.agent, made)

    def transfer(self, handle: nixl_xfer_handle, notif_msg: bytes = b"") -> str:
        """Posts a transfer: "DONE" or "PROC"."""
        status = self.agent.postXferReq(handle._handle, notif_msg)
        return "DONE" if status is _SUCCESS else "PROC"

    def check_xfer_state(self, handle: nixl_xfer_handle) -> str:
        """Whether a transfer is done: "DONE" or "PROC"."""
        return "DONE" if self.agent.getXferStatus(handle._handle) is _SUCCESS else "PROC"

    def get_xfer_telemetry(self, handle: nixl_xfer_handle) -> nixlXferTelemetry:
        """What a transfer took."""
        return self.agent.getXferTelemetry(handle._handle)

    def query_xfer_backend(self, handle: nixl_xfer_handle) -> str:
        """The backend that moves it."""
        used = self.agent.queryXferBackend(handle._handle)
        return next(name for name, backend in self.backends.items() if backend == used)

    def estimate_xfer_cost(self, req_handle: nixl_xfer_handle) -> tuple[int, int, str]:
        """Microseconds that a transfer should take by what the last large one took (0: there was
        none), the margin, and the method."""
        duration, margin, _ = self.agent.estimateXferCost(req_handle._handle)
        return duration, margin, "UNKNOWN"

    def release_xfer_handle(self, handle: nixl_xfer_handle) -> None:
        """Releases a transfer; one that is under way is given up first.

        When it returns nothing of it lands any more. It raises nixlRepostActiveError while the
        other agent has not confirmed that: to be called again.
        """
        handle.release()

    def release_dlist_handle(self, handle: nixl_prepped_dlist_handle) -> None:
        """Releases a prepared list. Transfers that were made of it stay."""
        handle.release()

    def prep_mem_view(
        self, dlist: nixlXferDList | nixlRemoteDList, *, backends: list[str] | None = None
    ) -> int:
        """Memory as kernels on a GPU see it; there is none."""
        return self.agent.prepMemView(dlist, self._handles(backends or []))

    def release_mem_view(self, mvh: int) -> None:
        """Releases what `prep_mem_view` gave."""
        self.agent.releaseMemView(mvh)

    # Notifications.

    def get_new_notifs(
        self,
        backends: list[str] = [],  # noqa: B006
    ) -> dict[str, list[bytes]]:
        """What has come since the last time, by sender; each sender's in its order."""
        return self.agent.getNotifs({}, self._handles(backends) if backends else ())

    def update_notifs(
        self,
        backends: list[str] = [],  # noqa: B006
    ) -> dict[str, list[bytes]]:
        """Adds what has come to `notifs`, and returns that."""
        for name, messages in self.get_new_notifs(backends).items():
            self.notifs.setdefault(name, []).extend(messages)
        return self.notifs

    def check_remote_xfer_done(
        self,
        remote_agent_name: str,
        lookup_tag: bytes,
        backends: list[str] = [],  # noqa: B006
        tag_is_prefix: bool = True,
    ) -> bool:
        """Whether a message has come that begins with a tag, or has it anywhere in it; the first
        such message is then taken off `notifs`."""
        messages = self.update_notifs(backends).get(remote_agent_name, [])
        for index, message in enumerate(messages):
            if message.startswith(lookup_tag) if tag_is_prefix else lookup_tag in message:
                del messages[index]
                return True
        return False

    def send_notif(
        self, remote_agent_name: str, notif_msg: bytes, backend: str | None = None
    ) -> None:
        """Tells an agent something."""
        handles = [] if backend is None else self._handles([backend])
        self.agent.genNotif(remote_agent_name, notif_msg, handles)

    # Metadata.

    def get_agent_metadata(self) -> bytes:
        """All that others need to reach this agent and its memory. Keep it from strangers: who
        holds it may connect."""
        return self.agent.getLocalMD()

    def get_partial_agent_metadata(
        self,
        descs: nixlRegDList,
        inc_conn_info: bool = False,
        backends: list[str] = [],  # noqa: B006
    ) -> bytes:
        """The same of some of its memory; without `inc_conn_info` for agents that know it."""
        return self.agent.getLocalPartialMD(descs, inc_conn_info, self._handles(backends))

    def add_remote_agent(self, metadata: bytes) -> bytes:
        """Adds an agent, in a new life too, or what it tells besides; its name."""
        return self.agent.loadRemoteMD(metadata)

    def remove_remote_agent(self, agent: str) -> None:
        """Forgets an agent; no transfer with it moves anything when this returns."""
        self.agent.invalidateRemoteMD(agent)

    def send_local_metadata(self, ip_addr: str = "", port: int = DEFAULT_COMM_PORT) -> None:
        """Sends all metadata to the listener of another agent."""
        self.agent.sendLocalMD(ip_addr, port)

    def send_partial_agent_metadata(
        self,
        descs: nixlRegDList,
        inc_conn_info: bool = False,
        backends: list[str] = [],  # noqa: B006
        ip_addr: str = "",
        port: int = DEFAULT_COMM_PORT,
        label: str = "",
    ) -> None:
        """Sends metadata of some memory to the listener of another agent."""
        self.agent.sendLocalPartialMD(
            descs, inc_conn_info, self._handles(backends), ip_addr, port, label
        )

    def fetch_remote_metadata(
        self, remote_agent: str, ip_addr: str = "", port: int = DEFAULT_COMM_PORT, label: str = ""
    ) -> None:
        """Asks the listener of another agent for its metadata; `check_remote_metadata` says when it
        has come."""
        self.agent.fetchRemoteMD(remote_agent, ip_addr, port, label)

    def invalidate_local_metadata(self, ip_addr: str = "", port: int = DEFAULT_COMM_PORT) -> None:
        """Asks the listener of another agent to forget this one."""
        self.agent.invalidateLocalMD(ip_addr, port)

    def check_remote_metadata(self, agent: str, descs: nixlXferDList | None = None) -> bool:
        """Whether an agent is known, with this memory."""
        wanted = nixlXferDList(nixlBind.DRAM_SEG) if descs is None else descs
        return self.agent.checkRemoteMD(agent, wanted) is _SUCCESS

    # Lists of descriptors.

    def get_xfer_descs(self, descs: Any, mem_type: str | None = None) -> nixlXferDList | None:
        """Places of a transfer: of 3-tuples or a table of three columns (address, length, device;
        with a kind of memory), of a tensor, of tensors. What has another shape gives `None`."""
        return descriptors(nixlXferDList, descs, mem_type)

    def get_reg_descs(self, descs: Any, mem_type: str | None = None) -> nixlRegDList | None:
        """Memory to be registered: of 4-tuples (address, length, device, meta), else as
        `get_xfer_descs`."""
        return descriptors(nixlRegDList, descs, mem_type)

    def get_remote_descs(self, descs: Any, mem_type: str | None = None) -> nixlRemoteDList | None:
        """Places of agents: of 4-tuples (address, length, device, agent)."""
        return descriptors(nixlRemoteDList, descs, mem_type)

    def get_serialized_descs(self, descs: Serializable) -> bytes:
        """Descriptors as bytes, for another process."""
        return encode(descs)

    def deserialize_descs(self, serialized_descs: bytes) -> Serializable:
        """What `get_serialized_descs` was given. Nothing in the bytes is executed."""
        return decode(serialized_descs)


def _made(descs: L | None) -> L:
    if descs is None:
        raise TypeError("these are no descriptors; the log says why")
    return descs
