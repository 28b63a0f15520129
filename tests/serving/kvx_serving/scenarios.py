"""The scenarios by name: which serving engine, through which of its connectors."""

from __future__ import annotations

import re
from itertools import groupby

from kvx_serving import prompts, rows
from kvx_serving.play import Family, Reference, Scenario, Setting, ask_alone, play
from kvx_serving.servers import Broken

VLLM = Family(
    name="vLLM",
    script="vllm",
    dialect=prompts.VLLM,
    health="/health",
    worker=re.compile("VLLM::Worker"),
    computed=re.compile(
        r'^vllm:prompt_tokens_by_source_total\{.*source="local_compute".*\} (\S+)$', re.MULTILINE
    ),
    # It computes the last token of the prompt again, on the cache of those before.
    crossed=lambda first, second: [*first[:-1], second[-1]],
)

SGLANG = Family(
    name="SGLang",
    script="sglang",
    dialect=prompts.SGLANG,
    health="/health",
    worker=re.compile("sglang::scheduler"),
    computed=None,
    # It takes the first token of the answer from prefill too: nothing is left of its own prompt.
    crossed=lambda first, _: first,
)

NIXL = frozenset({"NIXL", "UCX"})
MOONCAKE = frozenset({"Mooncake"})

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("vllm-nixl", "vLLM, NixlConnector", VLLM, "nixl", "vllm-nixl", NIXL),
        Scenario(
            "vllm-mooncake", "vLLM, MooncakeConnector", VLLM, "mooncake", "vllm-mooncake", MOONCAKE
        ),
        Scenario("sglang-mooncake", "SGLang, mooncake", SGLANG, "mooncake", "sglang", MOONCAKE),
        Scenario(
            "sglang-mooncake-tp2",
            "SGLang, mooncake, TP 1 to TP 2",
            SGLANG,
            "mooncake",
            "sglang",
            MOONCAKE,
            decode_ranks=2,
        ),
        Scenario("sglang-nixl", "SGLang, nixl", SGLANG, "nixl", "sglang", NIXL),
    )
}


def play_all(names: list[str], setting: Setting) -> None:
    """Plays scenarios one after another, each family's after its reference."""
    chosen = [SCENARIOS[name] for name in names]
    for family, group in groupby(chosen, key=lambda scenario: scenario.family):
        scenarios = list(group)
        reference = reference_of(family, setting)
        for scenario in scenarios:
            rows.suite(scenario.title)
            if reference is None:
                rows.failed("all rows", "there is no reference")
                continue
            try:
                play(scenario, reference, setting)
            except Broken as error:
                rows.failed("all rows", str(error))


def reference_of(family: Family, setting: Setting) -> Reference | None:
    """The family's reference; None if there is none, which has been told then."""
    rows.suite(f"{family.name}, without disaggregation")
    row = "answers every prompt"
    try:
        reference = ask_alone(family, setting)
    except (Broken, OSError, ValueError, KeyError) as error:
        rows.failed(row, f"{type(error).__name__}: {error}")
        return None
    rows.passed(row)
    return reference
