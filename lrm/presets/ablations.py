"""Variants of the default, to compare one choice at a time: same decoder, same order of the data, same seeds."""

from __future__ import annotations

from functools import partial

from lrm.config import (
    ATTENTION,
    BUDGETS,
    CONSTANT,
    FROZEN,
    HYBRID,
    LINEAR,
    NOISE,
    NONE,
    SHUFFLED,
    SOFT,
    TEXT,
    ModelConfig,
    RunConfig,
    TokensConfig,
)
from lrm.presets.preset import Preset

AS_DEFAULT = "as default"


def of_variant(variant: str) -> RunConfig:
    """Make the default with another way for signals to reach the prompt."""
    return RunConfig(tokens=TokensConfig(variant=variant))


def text_truncated() -> RunConfig:
    """Make the variant `text` with prompts as short as those of `soft`."""
    return RunConfig(tokens=TokensConfig(variant=TEXT, text_budget=True))


def of_memory(kind: str) -> RunConfig:
    """Read as far back as the default, but compress the older half of the events."""
    base = RunConfig()
    older = base.model.max_history // 2
    return RunConfig(
        tokens=TokensConfig(memory=kind, memory_events=older),
        model=ModelConfig(max_history=base.model.max_history - older),
    )


def elastic() -> RunConfig:
    """Train one model for every number of query and candidate tokens up to sixteen."""
    return RunConfig(tokens=TokensConfig(elastic=True, n_query_tokens=max(BUDGETS), n_candidate_tokens=max(BUDGETS)))


PURPOSES = {
    SOFT: "the default by the name of its variant",
    TEXT: "signals written as text",
    HYBRID: "numbers as soft tokens, words as text",
    NONE: "no signals: items and order alone",
    NOISE: "random numbers in place of signals",
    FROZEN: "signals through random weights that are not trained",
    SHUFFLED: "signals of another row of like popularity",
    CONSTANT: "every signal missing",
}
LONGER = "several times default"

PRESETS: dict[str, Preset] = {
    **{
        variant: Preset(
            make=partial(of_variant, variant), purpose=purpose, time=LONGER if variant in (TEXT, HYBRID) else AS_DEFAULT
        )
        for variant, purpose in PURPOSES.items()
    },
    "text-truncated": Preset(make=text_truncated, purpose="text in prompts as short as soft tokens", time=AS_DEFAULT),
    **{
        f"memory-{kind}": Preset(make=partial(of_memory, kind), purpose="older events compressed", time=AS_DEFAULT)
        for kind in (LINEAR, ATTENTION)
    },
    "elastic": Preset(make=elastic, purpose="one model for every number of tokens", time=LONGER),
}
