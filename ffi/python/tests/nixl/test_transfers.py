"""Transfers as serving engines make them: many, in parallel, to oneself, over and over."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import Any, Callable

import numpy as np
import pytest
from nixl_agents import PATIENCE_S, Agents, Pair, Worker, arrived, finished, moved, until

import kvx
from kvx.dropin.nixl import remotes

Pairs = Callable[..., Pair]
Workers = Callable[..., Worker]


def blocks(memory: Any, count: int, size: int) -> Any:
    rows = np.empty((count, 3), np.uint64)
    rows[:, 0] = memory.address + np.arange(count) * size
    rows[:, 1], rows[:, 2] = size, 0
    return rows


@pytest.mark.parametrize("op", ["READ", "WRITE"])
def test_scattered_blocks_land_where_they_belong(make_pair: Pairs, op: str) -> None:
    count, size = 4096, 512
    pair = make_pair(count * size)
    random = np.random.default_rng(3)
    pair.mine.array[:] = random.integers(0, 256, count * size)
    pair.theirs.array[:] = random.integers(0, 256, count * size)
    before = pair.mine.array.copy(), pair.theirs.array.copy()
    local = pair.one.prep_xfer_dlist("", blocks(pair.mine, count, size), "DRAM")
    remote = pair.one.prep_xfer_dlist("two", blocks(pair.theirs, count, size), "DRAM")
    ours, theirs = (random.permutation(count)[: count // 2] for _ in range(2))
    handle = pair.one.make_prepped_xfer(op, local, ours, remote, theirs)
    moved(pair.one, handle)
    mine, far = (array.reshape(count, size) for array in before)
    if op == "WRITE":
        far[theirs] = mine[ours]
    else:
        mine[ours] = far[theirs]
    assert (pair.mine.array == mine.ravel()).all()
    assert (pair.theirs.array == far.ravel()).all()


def test_many_regions_serve_one_transfer(agents: Agents) -> None:
    """A region a layer, as SGLang registers them."""
    one, two = agents("one"), agents("two")
    layers, size = 64, 4096
    mine = [agents.memory(one, size, fill=layer) for layer in range(layers)]
    theirs = [agents.memory(two, size) for _ in range(layers)]
    one.add_remote_agent(two.get_agent_metadata())
    local = one.prep_xfer_dlist("", np.concatenate([m.table((0, size)) for m in mine]), "DRAM")
    remote = one.prep_xfer_dlist(
        "two", np.concatenate([m.table((0, size)) for m in theirs]), "DRAM"
    )
    moved(one, one.make_prepped_xfer("WRITE", local, range(layers), remote, range(layers)))
    assert all((theirs[layer].array == layer).all() for layer in range(layers))


def test_metadata_that_comes_meanwhile_moves_no_transfer_to_other_memory(agents: Agents) -> None:
    one, two = agents("one"), agents("two")
    mine, wanted, other = agents.memory(one, fill=1), agents.memory(two), agents.memory(two)
    complete = two.get_agent_metadata()
    later = agents.memory(two)
    partial = two.get_partial_agent_metadata(two.get_reg_descs(later.row(), "DRAM"), True)
    local = one.prep_xfer_dlist("", mine.table((0, 64)), "DRAM")
    # It comes before each of the lines that a list is prepared by, in turn.
    for moment in itertools.count(1):
        one.add_remote_agent(complete)
        lines = itertools.count(1)

        def line(frame: Any, event: str, _: Any, moment: int = moment, lines: Any = lines) -> Any:
            if frame.f_code.co_filename != remotes.__file__:
                return None
            if event == "line" and next(lines) == moment:
                one.add_remote_agent(partial)
            return line

        before = sys.gettrace()
        sys.settrace(line)
        try:
            remote = one.prep_xfer_dlist("two", wanted.table((0, 64)), "DRAM")
        finally:
            sys.settrace(before)
        if next(lines) <= moment:
            break
        wanted.array[:] = 0
        moved(one, one.make_prepped_xfer("WRITE", local, [0], remote, [0]))
        assert (wanted.array[:64] == 1).all()
        assert not other.array.any()
        assert not later.array.any()
    assert moment > 5


def test_strided_runs_are_what_their_blocks_are(make_pair: Pairs) -> None:
    pair = make_pair()
    pair.mine.array[:] = np.arange(pair.mine.size) % 251
    runs = np.array([(pair.mine.address, 64, 0, 256, 16), (pair.mine.address + 8192, 64, 0, 64, 4)])
    local = pair.one.prep_xfer_dlist("", runs, "DRAM")
    runs[:, 0] += pair.theirs.address - pair.mine.address
    remote = pair.one.prep_xfer_dlist("two", runs, "DRAM")
    moved(pair.one, pair.one.make_prepped_xfer("WRITE", local, range(20), remote, range(20)))
    starts = [index * 256 for index in range(16)] + [8192 + index * 64 for index in range(4)]
    wanted = np.full(pair.theirs.size, 2, np.uint8)
    for start in starts:
        wanted[start : start + 64] = pair.mine.array[start : start + 64]
    assert (pair.theirs.array == wanted).all()


def test_transfers_to_oneself_move(agents: Agents) -> None:
    agent = agents("one")
    memory = agents.memory(agent, 8192)
    memory.array[:4096] = 7
    local = agent.prep_xfer_dlist("", memory.table((0, 4096)), "DRAM")
    myself = agent.prep_xfer_dlist("one", memory.table((4096, 4096)), "DRAM")
    moved(agent, agent.make_prepped_xfer("WRITE", local, [0], myself, [0], b"done"))
    assert (memory.array == 7).all()
    assert arrived(agent) == {"one": [b"done"]}


def test_threads_share_agents(make_pair: Pairs) -> None:
    threads, rounds, size = 8, 40, 1 << 14
    pair = make_pair(threads * size)
    failed: list[BaseException] = []

    def work(index: int) -> None:
        try:
            at = index * size
            places = ((at, size // 2), (at + size // 2, size // 2))
            local = pair.one.prep_xfer_dlist("", pair.mine.table(*places), "DRAM")
            remote = pair.one.prep_xfer_dlist("two", pair.theirs.table(*places), "DRAM")
            for turn in range(rounds):
                pair.mine.array[at : at + size] = (index + turn) % 256
                op = "WRITE" if turn % 2 == 0 else "READ"
                handle = pair.one.make_prepped_xfer(op, local, [1, 0], remote, [1, 0])
                moved(pair.one, handle)
                handle.release()
                assert (pair.mine.array[at : at + size] == pair.theirs.array[at : at + size]).all()
                own = pair.agents.memory(pair.one, 4096)
                descs = pair.one.get_reg_descs(own.row(), "DRAM")
                pair.one.deregister_memory(descs)
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not failed


def stoppable(agents: Agents, worker: Workers, size: int) -> tuple[Worker, Any, Any]:
    """A process with agent `two`, agent `one` that is connected to it, and a transfer of `size`
    bytes from `one` to `two`: it does not end while the process is stopped."""
    two, one = worker(), agents("one")
    two.agent("two")
    _, address = two("memory", size=size)
    mine = agents.memory(one, size, fill=1)
    one.add_remote_agent(two.metadata())
    one.make_connection("two")
    local = one.get_xfer_descs([(mine.address, size, 0)], "DRAM")
    remote = one.get_xfer_descs([(address, size, 0)], "DRAM")
    return two, one, one.initialize_xfer("WRITE", local, remote, "two")


def test_one_of_several_posts_of_a_handle_goes_through(agents: Agents, worker: Workers) -> None:
    two, one, handle = stoppable(agents, worker, 64 << 20)
    active = agents.nixl._bindings.nixlRepostActiveError
    outcomes: list[str] = []
    start = threading.Barrier(6)

    def post() -> None:
        start.wait()
        try:
            outcomes.append(one.transfer(handle, b"once"))
        except active:
            outcomes.append("active")

    two.stop()
    running = [threading.Thread(target=post) for _ in range(6)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert sorted(outcomes) == ["PROC"] + ["active"] * 5
    two.go_on()
    finished(one, handle)
    one.send_notif("two", b"after it")
    assert two("notifs", count=2) == {"one": ["once", "after it"]}


def test_a_look_at_one_post_says_nothing_of_the_next(
    agents: Agents, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, one, handle = stoppable(agents, worker, 64 << 20)
    assert one.transfer(handle) in ("DONE", "PROC")
    until(lambda: one.agent._requests[handle._handle].last.transfer.done, "the end")
    looks, posted = threading.Event(), threading.Event()
    real = kvx.Transfer.result

    def result(transfer: kvx.Transfer) -> Any:
        report = real(transfer)
        if threading.current_thread() is slow:
            looks.set()
            posted.wait()
        return report

    monkeypatch.setattr(kvx.Transfer, "result", result)
    slow = threading.Thread(target=one.check_xfer_state, args=(handle,), daemon=True)
    slow.start()
    looks.wait()
    assert one.check_xfer_state(handle) == "DONE"
    two.stop()
    assert one.transfer(handle) == "PROC"
    posted.set()
    slow.join()
    assert one.check_xfer_state(handle) == "PROC"
    # Its removal finds it, too.
    one.remove_remote_agent("two")
    assert one.agent._requests[handle._handle].last.transfer.done
    two.go_on()


class HeldPosts:
    """Posts that are begun and do not go on until they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, agent: Any, handle: Any) -> None:
        self._begun, self._let = threading.Event(), threading.Event()
        self.outcomes: list[Any] = []
        real = kvx.Prepared.post

        def post(prepared: kvx.Prepared, *arguments: Any) -> kvx.Transfer:
            self._begun.set()
            self._let.wait(PATIENCE_S)
            return real(prepared, *arguments)

        def transfer() -> None:
            try:
                self.outcomes.append(agent.transfer(handle))
            except Exception as error:
                self.outcomes.append(error)

        monkeypatch.setattr(kvx.Prepared, "post", post)
        self._thread = threading.Thread(target=transfer, daemon=True)
        self._thread.start()
        self._begun.wait()

    def go_on(self) -> Any:
        """Lets them; what came of the one."""
        self._let.set()
        self._thread.join()
        return self.outcomes[0]


def test_a_transfer_that_is_being_posted_is_under_way(
    make_pair: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair()
    handle = pair.whole()
    moved(pair.one, handle)
    posts = HeldPosts(monkeypatch, pair.one, handle)
    assert pair.one.check_xfer_state(handle) == "PROC"
    assert posts.go_on() in ("DONE", "PROC")
    finished(pair.one, handle)


def test_posts_that_nobody_saw_end_are_let_go_of(make_pair: Pairs) -> None:
    pair = make_pair()
    handle = pair.whole()
    request = pair.one.agent._requests[handle._handle]
    for _ in range(3):
        pair.one.transfer(handle)
        until(lambda: request.last.transfer.done, "the end")
    moved(pair.one, handle)
    assert not pair.one.agent._parts.remotes.get("two").active


def test_a_post_that_was_interrupted_has_not_been(
    make_pair: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair()
    handle = pair.whole()
    moved(pair.one, handle)

    def interrupted(*_: Any) -> kvx.Transfer:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kvx.Prepared, "post", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pair.one.transfer(handle)
    assert pair.one.check_xfer_state(handle) == "DONE"
    pair.mine.array[:] = 3
    moved(pair.one, handle)
    assert (pair.theirs.array == 3).all()


def test_a_transfer_that_is_released_while_it_is_posted_lands_nothing_after(
    agents: Agents, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, one, handle = stoppable(agents, worker, 64 << 20)
    bindings = agents.nixl._bindings
    # What was never there can be taken back without asking.
    moved(one, handle)
    two.stop()
    posts = HeldPosts(monkeypatch, one, handle)
    # What is not posted yet may still land.
    with pytest.raises(bindings.nixlRepostActiveError):
        one.release_xfer_handle(handle)
    assert posts.go_on() == "PROC"
    two.go_on()
    # It was given up by the release that did not see it end.
    with pytest.raises(bindings.nixlCancelledError):
        finished(one, handle)
    with pytest.raises(bindings.nixlInvalidParamError):
        one.transfer(handle)
    one.release_xfer_handle(handle)


def test_removal_waits_for_a_transfer_that_is_being_posted(
    make_pair: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair(64 << 20)
    handle = pair.whole()
    remote = pair.one.agent._parts.remotes.get("two")
    posts = HeldPosts(monkeypatch, pair.one, handle)
    ended: list[bool] = []

    def remove() -> None:
        pair.one.remove_remote_agent("two")
        ended.append(pair.one.agent._requests[handle._handle].last.transfer.done)

    removes = threading.Thread(target=remove, daemon=True)
    removes.start()
    until(lambda: remote.removed, "the removal")
    posts.go_on()
    removes.join()
    assert ended == [True]


def test_a_transfer_whose_agent_is_removed_while_it_is_posted_lands_nothing_after(
    make_pair: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair()
    posts = HeldPosts(monkeypatch, pair.one, pair.whole())
    pair.one.remove_remote_agent("two")
    assert isinstance(posts.go_on(), pair.agents.nixl._bindings.nixlRemoteDisconnectError)
    assert (pair.theirs.array == 2).all()


def test_an_active_transfer_is_not_posted_again(make_pair: Pairs) -> None:
    pair = make_pair(256 << 20)
    handle = pair.whole()
    assert pair.one.transfer(handle) == "PROC"
    with pytest.raises(pair.agents.nixl._bindings.nixlRepostActiveError):
        pair.one.transfer(handle)
    finished(pair.one, handle)
    assert (pair.theirs.array == 1).all()
    pair.mine.array[:] = 3
    moved(pair.one, handle)
    assert (pair.theirs.array == 3).all()


def test_telemetry_measures(make_pair: Pairs) -> None:
    pair = make_pair(8 << 20, capture_telemetry=True)
    handle = pair.whole()
    moved(pair.one, handle)
    telemetry = pair.one.get_xfer_telemetry(handle)
    assert (telemetry.totalBytes, telemetry.descCount) == (8 << 20, 8)
    assert 0 < telemetry.postDuration <= telemetry.xferDuration
    assert pair.one.estimate_xfer_cost(handle)[0] > 0


def test_removal_of_an_agent_ends_its_transfers(make_pair: Pairs) -> None:
    pair = make_pair(256 << 20)
    handle = pair.whole("READ")
    assert pair.one.transfer(handle) == "PROC"
    pair.one.remove_remote_agent("two")
    landed = pair.mine.array.copy()
    assert (landed == 1).any(), "all had landed before"
    bindings = pair.agents.nixl._bindings
    with pytest.raises((bindings.nixlCancelledError, bindings.nixlRemoteDisconnectError)):
        finished(pair.one, handle)
    assert (pair.mine.array == landed).all()
    assert not pair.one.check_remote_metadata("two")
    # The other one goes on as before.
    assert pair.one.add_remote_agent(pair.two.get_agent_metadata()) == b"two"
    moved(pair.one, pair.whole("READ"))
    assert (pair.mine.array == 2).all()


def test_a_million_descriptors_are_prepared_as_columns(make_pair: Pairs) -> None:
    count = 1_400_000
    pair = make_pair(1 << 20)
    rows = np.empty((count, 3), np.uint64)
    rows[:, 0] = pair.mine.address + np.arange(count) % (1 << 19)
    rows[:, 1], rows[:, 2] = 64, 0
    local = pair.one.prep_xfer_dlist("NIXL_INIT_AGENT", rows, "DRAM")
    rows[:, 0] += np.uint64((pair.theirs.address - pair.mine.address) % (1 << 64))
    remote = pair.one.prep_xfer_dlist("two", rows, "DRAM")
    last = count - 1
    pair.mine.array[last % (1 << 19)] = 77
    moved(pair.one, pair.one.make_prepped_xfer("WRITE", local, [last], remote, [last]))
    assert pair.theirs.array[last % (1 << 19)] == 77
    rows[last, 0] += 1 << 21
    with pytest.raises(pair.agents.nixl._bindings.nixlNotFoundError, match=f"descriptor {last}"):
        pair.one.prep_xfer_dlist("two", rows, "DRAM")
