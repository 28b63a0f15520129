"""A prefill and a decode server, played against what one server that does both has answered."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from proxy import PAIRS, Pair, open_url, post

from kvx_serving import isolation, maps, prompts, rows
from kvx_serving.prompts import Dialect, Tokens
from kvx_serving.servers import Server, running

# How long a prompt of the control is: some blocks, and a part of one.
CONTROL_LENGTH = 500


@dataclass(frozen=True)
class Setting:
    """What the command line says."""

    # "kvx", or "real" for the engines that it replaces.
    engine: str
    examples: Path
    model: Path
    logs: Path

    def environment(self) -> dict[str, str]:
        """What every server is told."""
        told = {"MODEL": str(self.model), "KVX_DROP_IN": ""}
        if self.engine == "kvx":
            return {**told, "KVX_DROP_IN": "nixl,mooncake"}
        # Without the first, UCX crashes at exit where Debian's ibverbs-providers is installed.
        ucx = {"UCX_MODULES": "^efa", "UCX_TLS": "tcp,cma,sm,self", "UCX_NET_DEVICES": "lo"}
        return {**told, **ucx, "MC_TCP_BIND_ADDRESS": "127.0.0.1"}


@dataclass(frozen=True)
class Family:
    """A serving engine."""

    name: str
    script: str
    dialect: Dialect
    # What is at this path when the server is ready.
    health: str
    # How processes that hold a part of the KV cache call themselves.
    worker: re.Pattern[str]
    # Of /metrics, the tokens of prompts that a server has computed itself; None where a decode
    # server cannot.
    computed: re.Pattern[str] | None
    # The prompt whose tokens come when decode gets the second prompt and the cache of the first.
    crossed: Callable[[Tokens, Tokens], Tokens]


@dataclass(frozen=True)
class Scenario:
    """A prefill and a decode server of a family."""

    # By which it is chosen, and its logs are found.
    name: str
    title: str
    family: Family
    connector: str
    pair: str
    # The real engines that its workers map when kvx is not there.
    engines: frozenset[str]
    decode_ranks: int = 1


@dataclass
class Reference:
    """What the server without disaggregation has answered."""

    answers: dict[tuple[int, ...], Tokens] = field(default_factory=dict)

    def of(self, prompt: Tokens) -> Tokens:
        """The tokens that follow a prompt."""
        return self.answers[tuple(prompt)]


def ask_alone(family: Family, setting: Setting) -> Reference:
    """Starts a server that does prefill and decode itself, and asks it everything."""
    reference = Reference()
    port = isolation.free_port()
    with start(family, setting, f"{family.script}-alone", ["alone"], port, None) as server:
        server.wait_until_ready(family.health)
        first, second = control_prompts()
        crossed = family.crossed(first, second)
        for prompt in [*prompts.all_of("one"), *prompts.all_of("many"), first, second, crossed]:
            answer = post(server.url + family.dialect.path, family.dialect.request(prompt))
            reference.answers[tuple(prompt)] = family.dialect.read(answer)
    return reference


def play(scenario: Scenario, reference: Reference, setting: Setting) -> None:
    """Starts the pair and a proxy, and checks all that is promised of them: a row each."""
    with started(scenario, setting) as (prefill, decode, proxy, pair):
        ask = asker(scenario.family.dialect, proxy)
        for prompt in prompts.all_of("one"):
            check(f"{len(prompt)} tokens", reference.of(prompt), partial(ask, prompt))
        check_together(ask, reference)
        check_control(scenario.family, pair, reference)
        check_computed(scenario.family, decode)
        check_maps("prefill", scenario, prefill, 1, setting.engine)
        check_maps("decode", scenario, decode, scenario.decode_ranks, setting.engine)
        if rows.failures():
            for server in (prefill, decode, proxy):
                server.show_log()


@contextlib.contextmanager
def started(scenario: Scenario, setting: Setting) -> Iterator[tuple[Server, Server, Server, Pair]]:
    """Prefill, decode and a proxy, all ready, and what asks the two without the proxy."""
    family, connector = scenario.family, scenario.connector
    name = f"{scenario.name}-{setting.engine}"
    ports = {part: isolation.free_port() for part in ("prefill", "decode", "proxy", "side")}
    ranks = ["--tensor-parallel-size", str(scenario.decode_ranks)]
    sides = {"prefill": ports["side"], "decode": isolation.free_port()}
    if scenario.pair == "sglang":
        # One bootstrap server, of which both are told.
        sides["decode"] = ports["side"]
    with contextlib.ExitStack() as stack:
        servers = {
            part: stack.enter_context(
                start(
                    family,
                    setting,
                    f"{name}-{part}",
                    [part, connector, *(ranks if part == "decode" else [])],
                    ports[part],
                    sides[part],
                )
            )
            for part in ("prefill", "decode")
        }
        bootstrap = f"http://127.0.0.1:{ports['side']}"
        urls = (servers["prefill"].url, servers["decode"].url, bootstrap)
        for server in servers.values():
            server.wait_until_ready(family.health)
        command = [sys.executable, str(setting.examples / "proxy.py"), scenario.pair]
        command += ["--port", str(ports["proxy"])]
        for option, url in zip(("--prefill", "--decode", "--bootstrap"), urls):
            command += [option, url]
        url = f"http://127.0.0.1:{ports['proxy']}"
        log = setting.logs / f"{name}-proxy.log"
        proxy = stack.enter_context(running(f"{name}-proxy", command, {}, url, log))
        proxy.wait_until_ready(family.health)
        yield servers["prefill"], servers["decode"], proxy, PAIRS[scenario.pair](*urls)


def start(
    family: Family,
    setting: Setting,
    name: str,
    arguments: list[str],
    port: int,
    side: int | None,
) -> contextlib.AbstractContextManager[Server]:
    """Starts a server by the family's script."""
    environment = {**setting.environment(), "PORT": str(port)}
    if side is not None:
        environment["SIDE_PORT"] = str(side)
    script = str(setting.examples / f"{family.script}.sh")
    url = f"http://127.0.0.1:{port}"
    return running(name, [script, *arguments], environment, url, setting.logs / f"{name}.log")


def asker(dialect: Dialect, proxy: Server) -> Callable[[Tokens], Tokens]:
    """Asks the proxy, as a client would ask one server."""
    return lambda prompt: dialect.read(post(proxy.url + dialect.path, dialect.request(prompt)))


def check_together(ask: Callable[[Tokens], Tokens], reference: Reference) -> None:
    """All prompts of a series at once."""
    series = prompts.all_of("many")
    with ThreadPoolExecutor(len(series)) as pool:
        answers = [pool.submit(ask, prompt) for prompt in series]
        for prompt, answer in zip(series, answers):
            row = f"{len(prompt)} tokens, among {len(series)} at once"
            check(row, reference.of(prompt), answer.result)


def check_control(family: Family, pair: Pair, reference: Reference) -> None:
    """Gives prefill one prompt and decode another: decode must go on from the cache of the first.
    Had no cache moved, it would answer the second."""
    first, second = control_prompts()
    expected = reference.of(family.crossed(first, second))
    row = "control, decode goes on from the cache of another prompt"
    if expected == reference.of(second):
        rows.failed(row, "it says nothing: both prompts are answered alike")
        return
    prefill, decode = family.dialect.request(first), family.dialect.request(second)
    check(
        row, expected, lambda: family.dialect.read(pair.ask(family.dialect.path, prefill, decode))
    )


def check_computed(family: Family, decode: Server) -> None:
    """The control is one prompt; this is about all of them."""
    if family.computed is None:
        return
    # Each once, and the control.
    asked = 2 * len(prompts.LENGTHS) + 1
    with open_url(decode.url + "/metrics") as answer:
        metrics = answer.read().decode()
    counts = [float(count) for count in family.computed.findall(metrics)]
    row = "decode computed no more of a prompt than its last token"
    if not counts:
        rows.failed(row, "there is no such metric")
    elif sum(counts) > asked:
        rows.failed(row, f"it computed {sum(counts):.0f} tokens of {asked} prompts")
    else:
        rows.passed(row)


def control_prompts() -> tuple[Tokens, Tokens]:
    """Two prompts as long as each other."""
    return prompts.prompt(CONTROL_LENGTH, "first"), prompts.prompt(CONTROL_LENGTH, "second")


def check(row: str, expected: Tokens, answer: Callable[[], Tokens]) -> None:
    """Tokens that must be equal, all of them."""
    try:
        found = answer()
    except (OSError, ValueError, KeyError) as error:
        rows.failed(row, f"{type(error).__name__}: {error}")
        return
    if found == expected:
        rows.passed(row)
        return
    at = next((i for i, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), None)
    reason = f"{len(found)} tokens of {len(expected)}"
    if at is not None:
        reason = f"token {at} is {found[at]}, expected {expected[at]}"
    rows.failed(row, reason)


def check_maps(part: str, scenario: Scenario, server: Server, ranks: int, engine: str) -> None:
    """Which engines the processes of a server have mapped."""
    titles = {pid: maps.title(pid) for pid in server.processes()}
    mapped = {pid: maps.engines(pid) for pid in titles}
    for pid, title in titles.items():
        found = ", ".join(sorted(mapped[pid])) or "no engine"
        rows.note(f"{server.name}: {pid} {title[:60]}: {found}")
    if engine == "kvx":
        expected, foreign = {"kvx"}, {"NIXL", "UCX", "Mooncake"}
    else:
        expected, foreign = set(scenario.engines), {"kvx"}
    workers = [pid for pid, title in titles.items() if scenario.family.worker.search(title)]
    row = f"{part}, every worker maps {' and '.join(sorted(expected))}"
    if len(workers) != ranks:
        rows.failed(row, f"there are {len(workers)} workers, expected {ranks}")
    else:
        verdict(row, [f"{pid} does not" for pid in workers if not expected <= mapped[pid]])
    row = f"{part}, no process maps {' or '.join(sorted(foreign))}"
    verdict(row, [f"{pid} maps {mapped[pid]}" for pid in titles if mapped[pid] & foreign])


def verdict(row: str, faults: list[str]) -> None:
    """Passed without faults."""
    if faults:
        rows.failed(row, "; ".join(faults))
    else:
        rows.passed(row)
