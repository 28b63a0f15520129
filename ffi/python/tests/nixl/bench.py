"""What the calls cost that callers make most: to be run by hand, for either package.

    PYTHONPATH=.../kvx/dropin/path python bench.py        kvx
    python bench.py                                       NIXL, where it is installed

Prints a line for each measurement, the best of several. Asserts nothing but that all bytes came.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Callable

import numpy as np


def best(of: int, action: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(of):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def each(count: int, action: Callable[[], object]) -> float:
    """Seconds a call, of the fastest of five rounds."""

    def many() -> None:
        for _ in range(count):
            action()

    return best(5, many) / count


def report(what: str, seconds: float) -> None:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if seconds >= size or unit == "ns":
            print(f"{what:60} {seconds / size:9.2f} {unit}", flush=True)
            return


def finish(agent: Any, handle: Any) -> None:
    while agent.check_xfer_state(handle) != "DONE":
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--listed", type=int, default=1_400_000)
    options = parser.parse_args()
    import nixl_cu12._api as api

    print(api.__file__)
    blocks, size = options.blocks, options.size
    one, two = (api.nixl_agent(name, api.nixl_agent_config()) for name in ("one", "two"))
    random = np.random.default_rng(7)
    mine = random.integers(0, 256, 2 * blocks * size, dtype=np.uint8)
    theirs = np.zeros_like(mine)
    for agent, memory in ((one, mine), (two, theirs)):
        agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
    one.add_remote_agent(two.get_agent_metadata())

    def table(memory: Any, count: int) -> Any:
        rows = np.empty((count, 3), np.uint64)
        rows[:, 0] = memory.ctypes.data + (np.arange(count) % (2 * blocks)) * size
        rows[:, 1], rows[:, 2] = size, 0
        return rows

    long = table(mine, options.listed)
    report(
        f"prep_xfer_dlist, {options.listed:,} descriptors",
        best(3, lambda: one.prep_xfer_dlist("", long, "DRAM")),
    )
    local = one.prep_xfer_dlist("", table(mine, 2 * blocks), "DRAM")
    remote = one.prep_xfer_dlist("two", table(theirs, 2 * blocks), "DRAM")
    ours = random.permutation(2 * blocks)[:blocks]
    places = random.permutation(2 * blocks)[:blocks]

    def make() -> Any:
        return one.make_prepped_xfer("WRITE", local, ours, remote, places)

    report(f"make_prepped_xfer, {blocks:,} scattered pairs", best(7, make))
    # A connection first: the one measured is not the first transfer.
    first = one.make_prepped_xfer("WRITE", local, [0], remote, [0])
    one.transfer(first)
    finish(one, first)
    spent = []
    whole = []
    for _ in range(7):
        start = time.perf_counter()
        handle = make()
        one.transfer(handle)
        spent.append(time.perf_counter() - start)
        finish(one, handle)
        whole.append(time.perf_counter() - start)
        handle.release()
    report("make_prepped_xfer and transfer", min(spent))
    report(f"until it is done, {size} bytes a block", min(whole))
    for at, to in zip(ours[:: max(1, blocks // 1000)], places[:: max(1, blocks // 1000)]):
        assert (mine[at * size : (at + 1) * size] == theirs[to * size : (to + 1) * size]).all()
    report(
        "check_xfer_state of one that is done", each(20_000, lambda: one.check_xfer_state(first))
    )
    report("get_new_notifs with nothing new", each(20_000, lambda: two.get_new_notifs()))
    report("send_notif", each(200, lambda: one.send_notif("two", b"x")))
    while one.get_new_notifs() or two.get_new_notifs():
        pass
    small = one.make_prepped_xfer("WRITE", local, [1], remote, [1])

    def whole_small() -> None:
        one.transfer(small)
        finish(one, small)

    report("transfer of one block, until it is done", each(500, whole_small))


if __name__ == "__main__":
    main()
