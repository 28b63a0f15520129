"""Memory: what callers have registered, and what they name without having done so."""

from __future__ import annotations

import bisect
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

import kvx
from kvx.dropin.mooncake.settings import LOG

if TYPE_CHECKING:
    from kvx.dropin.mooncake.arguments import Column

OK = 0
INVALID = -1
NOT_REGISTERED = -3
OVERLAPS = -7

_LIMIT = 1 << 64


class Memory:
    """The registered regions of one engine. They never overlap."""

    def __init__(self, engine: kvx.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        # In the order in which they were registered.
        self._regions: dict[int, kvx.Region] = {}
        self._managed: dict[int, kvx.Region] = {}
        # All of them: bases in order, and beside each where it ends.
        self._bases: list[int] = []
        self._ends: list[int] = []
        # The same, for those who post; `None` once it is no longer true.
        self._published: _Published | None = None

    def register(self, ranges: list[tuple[int, int]]) -> int:
        """Registers all of these (address, length), or none, and tells peers of them."""
        done: list[kvx.Region] = []
        with self._lock:
            code = self._register_all(ranges, done)
            if code == OK:
                self._regions.update((region.address, region) for region in done)
                self._published = None
        if code != OK:
            for region in done:
                self._close(region)
        return code

    def deregister(self, address: int) -> int:
        """When this returns, no byte lands there any more."""
        with self._lock:
            region = self._regions.pop(address, None)
            if region is None:
                return NOT_REGISTERED
            self._forget(region)
        return self._close(region)

    def allocate(self, length: int) -> int:
        """Memory that peers may use; its address, or 0."""
        try:
            region = self._engine.allocate(max(length, 1))
        except kvx.Error as error:
            LOG.error("allocate_managed_buffer(%d): %s", length, error)
            return 0
        try:
            region.publish()
        except kvx.Error as error:
            LOG.error("allocate_managed_buffer(%d): %s", length, error)
            self._close(region)
            return 0
        with self._lock:
            self._managed[region.address] = region
            self._remember(region)
            self._published = None
        return region.address

    def free(self, address: int) -> int:
        """Mooncake says 0 whatever it is given; what is none of ours stays as it is."""
        with self._lock:
            region = self._managed.pop(address, None)
            if region is not None:
                self._forget(region)
        if region is None:
            LOG.warning("free_managed_buffer: %#x was not allocated, or was freed before", address)
            return OK
        return self._close(region)

    def first(self) -> int:
        """The address of what was registered first and still is; 0 if there is nothing."""
        with self._lock:
            return next(iter(self._regions), 0)

    def spans(self, addresses: Column, lengths: Column) -> tuple[kvx.Spans, kvx.Region | None]:
        """These bytes as spans, and a region that was registered for their sake alone, if one was.

        No caller needs to register what it sends: what is not is registered for the one call, and
        peers may not touch it. Only the bytes that spans name are ever touched, so that one region
        may span what lies between them.

        Raises:
            kvx.InvalidError: there can be no such bytes.
        """
        # Most calls name memory that is registered.
        registered = self._registered_spans(addresses, lengths)
        if registered is not None:
            return registered, None
        lowest = int(addresses.min())
        highest = max(map(int.__add__, addresses.tolist(), lengths.tolist()))
        if lowest == 0 or highest > _LIMIT:
            raise kvx.InvalidError("a buffer at 0, or one that ends beyond the address space")
        region = self._engine.register_address(lowest, highest - lowest, kvx.Rights.NONE)
        try:
            offsets = addresses - np.uint64(lowest)
            return self._engine.spans(region, offsets, lengths), region
        except BaseException:
            self._close(region)
            raise

    def give_back(self, region: kvx.Region) -> None:
        """Takes back what was registered for one call."""
        self._close(region)

    def _registered_spans(self, addresses: Column, lengths: Column) -> kvx.Spans | None:
        while True:
            published = self._published or self._publish()
            found = published.find(addresses, lengths)
            if found is None:
                return None
            regions, offsets, indices = found
            try:
                return self._engine.spans(regions, offsets, lengths, indices)
            except kvx.UnknownHandleError:
                # Another thread has just deregistered one of them, and perhaps registered it anew.
                if published is self._published:
                    raise

    def _publish(self) -> _Published:
        with self._lock:
            regions = [*self._regions.values(), *self._managed.values()]
            self._published = _Published(regions)
            return self._published

    def _register_all(self, ranges: list[tuple[int, int]], done: list[kvx.Region]) -> int:
        """Under the lock. `done` are those that were registered, whatever comes back."""
        for address, length in ranges:
            code = self._check(address, length)
            if code == OK:
                code = self._register_one(address, length, done)
            if code != OK:
                for region in done:
                    self._forget_range(region)
                return code
        return OK

    def _check(self, address: int, length: int) -> int:
        if length == 0:
            LOG.error("register %#x: of length 0", address)
            return INVALID
        above = bisect.bisect_right(self._bases, address)
        overlaps_below = above > 0 and self._ends[above - 1] > address
        overlaps_above = above < len(self._bases) and self._bases[above] < address + length
        if overlaps_below or overlaps_above:
            LOG.error("register %#x + %d: overlaps what is registered", address, length)
            return OVERLAPS
        return OK

    def _register_one(self, address: int, length: int, done: list[kvx.Region]) -> int:
        try:
            region = self._engine.register_address(address, length)
        except (kvx.Error, OverflowError) as error:
            LOG.error("register %#x + %d: %s", address, length, error)
            return INVALID
        done.append(region)
        self._remember(region)
        try:
            region.publish()
        except kvx.Error as error:
            LOG.error("register %#x + %d: %s", address, length, error)
            return INVALID
        return OK

    def _remember(self, region: kvx.Region) -> None:
        at = bisect.bisect_left(self._bases, region.address)
        self._bases.insert(at, region.address)
        self._ends.insert(at, region.address + region.length)

    def _forget(self, region: kvx.Region) -> None:
        self._forget_range(region)
        self._published = None

    def _forget_range(self, region: kvx.Region) -> None:
        at = bisect.bisect_left(self._bases, region.address)
        del self._bases[at], self._ends[at]

    @staticmethod
    def _close(region: kvx.Region) -> int:
        try:
            region.deregister()
        except (kvx.UnknownHandleError, kvx.ShutDownError):
            # The engine was closed meanwhile, and the region with it.
            return OK
        except kvx.Error as error:
            LOG.error("unregister %#x + %d: %s", region.address, region.length, error)
            return INVALID
        return OK


class _Published:
    """The regions at one moment, by address."""

    def __init__(self, regions: list[kvx.Region]) -> None:
        self._regions = sorted(regions, key=lambda region: region.address)
        self._bases = np.array([region.address for region in self._regions], np.uint64)
        self._sizes = np.array([region.length for region in self._regions], np.uint64)

    def find(
        self, addresses: Column, lengths: Column
    ) -> tuple[list[kvx.Region], Column, np.ndarray[Any, np.dtype[np.uint32]]] | None:
        """The regions that hold these bytes, and for each span where it lies in which of them.

        `None` if some lie in none. Regions without any of them are left out: they may go away.
        """
        places = np.searchsorted(self._bases, addresses, side="right").astype(np.int64) - 1
        if not self._regions or int(places.min()) < 0:
            return None
        offsets, sizes = addresses - self._bases[places], self._sizes[places]
        if bool(np.any(offsets > sizes)) or bool(np.any(lengths > sizes - offsets)):
            return None
        used = np.zeros(len(self._regions), bool)
        used[places] = True
        numbers = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
        regions = [self._regions[at] for at in np.flatnonzero(used)]
        return regions, offsets, numbers[places]
