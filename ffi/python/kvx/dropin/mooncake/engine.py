"""Mooncake's TransferEngine: arguments in, codes out. What a code hides is logged."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

import kvx
from kvx.dropin.mooncake import addresses, raw, settings, values
from kvx.dropin.mooncake.arguments import number, numbers, text
from kvx.dropin.mooncake.arguments import raw as raw_text
from kvx.dropin.mooncake.service import Service
from kvx.dropin.mooncake.settings import LOG
from kvx.dropin.mooncake.transfers import Order, Outcome, Running
from kvx.dropin.mooncake.values import TransferNotify, encode

if TYPE_CHECKING:
    from kvx.dropin.mooncake.arguments import Column

_OK = 0
_FAILED = -1
_NO_HOST = -101
_NO_PEER = -102

_SUPPORTED = "P2PHANDSHAKE"
_PROTOCOLS = ("tcp", "rdma", "")


class TransferEngine:
    """One engine. Any thread may call any method at any time.

    Calls return codes and do not raise, but for a TypeError where an argument is of a wrong type.
    """

    __slots__ = ("__weakref__", "_changing", "_service")

    TransferOpcode = values.TransferOpcode

    def __init__(self) -> None:
        self._service: Service | None = None
        # Held while the engine is replaced.
        self._changing = threading.Lock()

    @property
    def _live(self) -> Service | None:
        service = self._service
        return service if service is not None and service.is_here else None

    # Which engine it is.

    def initialize(
        self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, /
    ) -> int:
        """Listens at `local_hostname`; a port in it is ignored. 0, or -1 and a line in the log."""
        host, server = text(local_hostname), text(metadata_server)
        kind, _ = text(protocol), text(device_name)
        with self._changing:
            before, self._service = self._service, None
            if before is not None:
                before.close()
            self._service = _start(host, server, kind)
        return _FAILED if self._service is None else _OK

    def initialize_ext(
        self,
        local_hostname: str,
        metadata_server: str,
        protocol: str,
        device_name: str,
        metadata_type: str,
        /,
    ) -> int:
        """As `initialize`: peers ask each other, so that there is no type of a server."""
        text(metadata_type)
        return self.initialize(local_hostname, metadata_server, protocol, device_name)

    def get_rpc_port(self) -> int:
        """The port under which peers name this engine; -1 before `initialize`."""
        service = self._live
        return _FAILED if service is None else service.port

    def get_engine(self) -> None:
        """Mooncake's own store would share the engine in C++ that this is not: it makes its own."""
        LOG.info("get_engine: there is no engine of Mooncake's behind this one")

    def get_engine_ptr(self) -> int:
        """0, as there is none."""
        return 0

    def get_local_topology(self, device_name: str | None = None) -> str:
        """The NUMA nodes, and no NIC that they prefer, as JSON."""
        if device_name is not None:
            text(device_name)
        return json.dumps({f"cpu:{node}": [[], []] for node in _numa_nodes()}, indent="\t") + "\n"

    def warmup_efa_segment(self, segment_name: str) -> int:
        """Nothing to do."""
        text(segment_name)
        return _OK

    def send_probe(self, peer_server_name: str) -> int:
        """Whether a peer can be reached: 0; -101 for a name that is none, -102 if it cannot."""
        target = text(peer_server_name)
        service = self._live
        if service is None:
            return _uninitialized("send_probe")
        try:
            service.peers.probe(target, time.monotonic() + service.settings.connect_timeout)
        except addresses.UnresolvedError as error:
            LOG.warning("send_probe %s: %s", target, error)
            return _NO_HOST
        except (kvx.Error, OSError) as error:
            LOG.warning("send_probe %s: %s", target, error)
            return _NO_PEER
        return _OK

    # Memory.

    def register_memory(self, buffer_addr: int, capacity: int, location: str = "*") -> int:
        """Lets peers read and write it. 0; -7 where something is registered; -1."""
        ranges = [(number(buffer_addr), number(capacity))]
        text(location)
        service = self._live
        if service is None:
            return _uninitialized("register_memory")
        return service.memory.register(ranges)

    def unregister_memory(self, buffer_addr: int, /) -> int:
        """Takes that back; when this returns nothing lands there any more. 0; -3 if unknown."""
        address = number(buffer_addr)
        service = self._live
        if service is None:
            return _uninitialized("unregister_memory")
        return service.memory.deregister(address)

    def batch_register_memory(
        self, buffer_addresses: list[int], capacities: list[int], location: str = "*"
    ) -> int:
        """Registers all, or none."""
        bases, sizes = numbers(buffer_addresses), numbers(capacities)
        text(location)
        service = self._live
        if service is None:
            return _uninitialized("batch_register_memory")
        if len(bases) != len(sizes):
            LOG.error("batch_register_memory: %d addresses, %d capacities", len(bases), len(sizes))
            return _FAILED
        return service.memory.register(list(zip(bases.tolist(), sizes.tolist())))

    def batch_unregister_memory(self, buffer_addresses: list[int], /) -> int:
        """Unregisters all that are known. 0; -3 if any is not."""
        bases = numbers(buffer_addresses)
        service = self._live
        if service is None:
            return _uninitialized("batch_unregister_memory")
        codes = [service.memory.deregister(address) for address in bases.tolist()]
        return min(codes, default=_OK)

    def get_first_buffer_address(self, segment_name: str, /) -> int:
        """The address of what this engine or a peer has registered first; 0 if nothing."""
        name = text(segment_name)
        service = self._live
        if service is None:
            return 0
        until = time.monotonic() + service.settings.transfer_timeout
        try:
            if service.name == name or service.peers.is_self(name):
                return service.memory.first()
            peer = service.peers.reach(name, until)
            regions = service.peers.ask(name, peer, until).regions
        except (kvx.Error, OSError) as error:
            LOG.error("get_first_buffer_address %s: %s", name, error)
            return 0
        return regions[0].address if regions else 0

    def allocate_managed_buffer(self, length: int, /) -> int:
        """Registered memory; its address, or 0."""
        size = number(length)
        service = self._live
        return 0 if service is None else service.memory.allocate(size)

    def free_managed_buffer(self, buffer_addr: int, length: int, /) -> int:
        """Frees it."""
        address, _ = number(buffer_addr), number(length)
        service = self._live
        if service is None:
            return _uninitialized("free_managed_buffer")
        return service.memory.free(address)

    def write_bytes_to_buffer(self, dest_address: int, src_ptr: bytes, length: int, /) -> int:
        """Copies the first `length` bytes of a text to an address. 0; -1 where there is none."""
        address, data, size = number(dest_address), raw_text(src_ptr), number(length)
        if size > len(data):
            LOG.error("write_bytes_to_buffer: %d bytes of %d", size, len(data))
            return _FAILED
        try:
            written = raw.write(address, data[:size])
        except OSError as error:
            LOG.error("write_bytes_to_buffer: %s", error)
            return _FAILED
        return _OK if written else _FAILED

    def read_bytes_from_buffer(self, source_address: int, length: int, /) -> bytes:
        """The bytes at an address; none where there is no such memory."""
        address, size = number(source_address), number(length)
        try:
            data = raw.read(address, size)
        except OSError as error:
            LOG.error("read_bytes_from_buffer: %s", error)
            return b""
        if data is None:
            LOG.error("read_bytes_from_buffer: no %d bytes at %#x", size, address)
        return data or b""

    # Transfers.

    def transfer_sync_write(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        """Writes `length` bytes to the target's memory. 0; -1, and then none lands any more."""
        text(transport_hint)
        order = _single(kvx.Op.WRITE, target_hostname, buffer, peer_buffer_address, length)
        return self._run(order)

    def transfer_sync_read(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        """Reads `length` bytes of the target's memory. 0 or -1."""
        text(transport_hint)
        order = _single(kvx.Op.READ, target_hostname, buffer, peer_buffer_address, length)
        return self._run(order)

    def transfer_sync(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        opcode: values.TransferOpcode,
        notify: TransferNotify | None = None,
        transport_hint: str = "",
    ) -> int:
        """Either; the target's user is told `notify` once all is done."""
        text(transport_hint)
        op, told = _op(opcode), _told(notify)
        order = _single(op, target_hostname, buffer, peer_buffer_address, length)
        return self._run(order._replace(notification=told))

    def batch_transfer_sync_write(
        self,
        target_hostname: str,
        buffers: list[int],
        peer_buffer_addresses: list[int],
        lengths: list[int],
        transport_hint: str = "",
    ) -> int:
        """Writes any number of buffers, as one transfer. 0; -1 if any failed."""
        text(transport_hint)
        order = _batch(kvx.Op.WRITE, target_hostname, buffers, peer_buffer_addresses, lengths)
        return self._run(order)

    def batch_transfer_sync_read(
        self,
        target_hostname: str,
        buffers: list[int],
        peer_buffer_addresses: list[int],
        lengths: list[int],
        transport_hint: str = "",
    ) -> int:
        """Reads any number of buffers, as one transfer. 0; -1 if any failed."""
        text(transport_hint)
        order = _batch(kvx.Op.READ, target_hostname, buffers, peer_buffer_addresses, lengths)
        return self._run(order)

    def batch_transfer_sync(
        self,
        target_hostname: str,
        buffers: list[int],
        peer_buffer_addresses: list[int],
        lengths: list[int],
        opcode: values.TransferOpcode,
        notify: TransferNotify | None = None,
        transport_hint: str = "",
    ) -> int:
        """Either; the target's user is told `notify` once all is done."""
        text(transport_hint)
        op, told = _op(opcode), _told(notify)
        order = _batch(op, target_hostname, buffers, peer_buffer_addresses, lengths)
        if told is not None and not len(order.lengths):
            LOG.error("batch_transfer_sync: a notification of nothing")
            return _FAILED
        return self._run(order._replace(notification=told))

    def batch_transfer_async_write(
        self,
        target_hostname: str,
        buffers: list[int],
        peer_buffer_addresses: list[int],
        lengths: list[int],
        transport_hint: str = "",
    ) -> int:
        """Begins a WRITE. Its number, for `get_batch_transfer_status`; 0 if it cannot begin."""
        text(transport_hint)
        order = _batch(kvx.Op.WRITE, target_hostname, buffers, peer_buffer_addresses, lengths)
        return self._begin(order)

    def batch_transfer_async_read(
        self,
        target_hostname: str,
        buffers: list[int],
        peer_buffer_addresses: list[int],
        lengths: list[int],
        transport_hint: str = "",
    ) -> int:
        """Begins a READ. Its number; 0 if it cannot begin."""
        text(transport_hint)
        order = _batch(kvx.Op.READ, target_hostname, buffers, peer_buffer_addresses, lengths)
        return self._begin(order)

    def batch_transfer_async(
        self,
        target_hostname: str,
        buffers: list[int],
        peer_buffer_addresses: list[int],
        lengths: list[int],
        opcode: values.TransferOpcode,
        transport_hint: str = "",
    ) -> int:
        """Begins either. Its number; 0 if it cannot begin."""
        text(transport_hint)
        op = _op(opcode)
        return self._begin(_batch(op, target_hostname, buffers, peer_buffer_addresses, lengths))

    def get_batch_transfer_status(self, batch_ids: list[int], /) -> int:
        """Waits for all. 0 if each is done; -1 if any failed or is unknown. They are then spent."""
        wanted = dict.fromkeys(numbers(batch_ids).tolist())
        service = self._live
        if service is None:
            return _OK if not wanted else _uninitialized("get_batch_transfer_status")
        outcomes = [_outcome(service.batches.take(batch)) for batch in wanted]
        return _OK if all(outcome is Outcome.DONE for outcome in outcomes) else _FAILED

    def transfer_submit_write(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        """Begins a WRITE. Its number, for `transfer_check_status`; 0 if it cannot begin."""
        text(transport_hint)
        order = _single(kvx.Op.WRITE, target_hostname, buffer, peer_buffer_address, length)
        return self._begin(order)

    def transfer_check_status(self, batch_id: int, /) -> int:
        """1 done, 0 under way, -1 failed or unknown, -2 timed out. Spent after 1 and -1."""
        batch = number(batch_id)
        service = self._live
        if service is None:
            return _uninitialized("transfer_check_status")
        outcome = service.batches.poll(batch)
        if outcome is None:
            return 0 if service.batches.has(batch) else _FAILED
        if outcome is not Outcome.TIMED_OUT:
            service.batches.take(batch)
        return 1 if outcome is Outcome.DONE else outcome.value

    def get_notifies(self) -> list[TransferNotify]:
        """What peers have told since the last call, in the order in which it came."""
        service = self._live
        return [] if service is None else service.notifies()

    def _run(self, order: Order) -> int:
        running = self._post(order)
        return _OK if running is not None and running.wait() is Outcome.DONE else _FAILED

    def _begin(self, order: Order) -> int:
        service = self._live
        running = self._post(order)
        return 0 if service is None or running is None else service.batches.add(running)

    def _post(self, order: Order) -> Running | None:
        service = self._live
        if service is None:
            _uninitialized(str(order))
            return None
        counts = {len(order.buffers), len(order.places), len(order.lengths)}
        if len(counts) != 1:
            LOG.error("%s: lists of different lengths", order)
            return None
        try:
            return service.transfers.post(order)
        except (kvx.Error, OSError) as error:
            LOG.error("%s failed: %s", order, error)
            return None


TransferEngine.__module__ = "mooncake.engine"


def _start(host_name: str, server: str, protocol: str) -> Service | None:
    """What `initialize` makes; `None` where it cannot be, which is logged."""
    chosen = settings.read()
    if server != _SUPPORTED:
        LOG.error(
            "initialize: metadata server %r: supported is %s, with which peers ask each other",
            server,
            _SUPPORTED,
        )
        return None
    if protocol not in _PROTOCOLS:
        LOG.warning("initialize: protocol %r is none of kvx's, which chooses by itself", protocol)
    host, _ = addresses.split(host_name)
    try:
        service = Service(host, chosen)
    except (kvx.Error, OSError) as error:
        LOG.error("initialize at %r: %s", host, error)
        return None
    LOG.info("%s: served by kvx, listening at %s", service.name, service.engine.address)
    return service


def _uninitialized(what: str) -> int:
    LOG.error("%s: initialize comes first, in this process", what)
    return _FAILED


def _single(op: kvx.Op, target: object, buffer: object, place: object, length: object) -> Order:
    return Order(op, text(target), _one(buffer), _one(place), _one(length), None)


def _batch(op: kvx.Op, target: object, buffers: object, places: object, lengths: object) -> Order:
    name = text(target)
    return Order(op, name, numbers(buffers), numbers(places), numbers(lengths), None)


def _one(value: object) -> Column:
    return np.array([number(value)], np.uint64)


def _op(opcode: object) -> kvx.Op:
    if not isinstance(opcode, values.TransferOpcode):
        raise TypeError(f"opcode: expected a TransferOpcode, not {type(opcode).__name__}")
    return kvx.Op.READ if opcode is values.TransferOpcode.Read else kvx.Op.WRITE


def _told(notify: object) -> bytes | None:
    if notify is None:
        return None
    if not isinstance(notify, TransferNotify):
        raise TypeError(f"notify: expected a TransferNotify, not {type(notify).__name__}")
    return encode(notify)


def _outcome(taken: Running | Outcome | None) -> Outcome:
    if isinstance(taken, Running):
        return taken.wait()
    return Outcome.FAILED if taken is None else taken


def _numa_nodes() -> list[int]:
    try:
        names = os.listdir("/sys/devices/system/node")
    except OSError:
        names = []
    found = (re.fullmatch(r"node(\d+)", name) for name in names)
    return sorted(int(match[1]) for match in found if match) or [0]
