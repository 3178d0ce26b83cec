"""Published systems in small form, for data of which only the order of each user's events (and their times) is known.

They learn what comes next at every event, from item ids alone. Sizes and rates are those of the papers for
MovieLens-1M. What differs from the authors' code is said at each preset and in the file of its block. All end in
an RMS norm. Negatives are drawn by popularity to the power of .75, and corrected for it; the authors draw evenly.
"""

from __future__ import annotations

from dataclasses import replace

from lrm.config import NONE, ModelConfig, PretrainConfig, RunConfig, TokensConfig, TrainingConfig
from lrm.presets.preset import Preset

ALWAYS_SAMPLED = 0


def sasrec() -> RunConfig:
    """Make SASRec (1808.09781), trained with a softmax over the catalogue in place of one negative for each target."""
    return RunConfig(
        name="sasrec",
        tokens=TokensConfig(variant=NONE, n_query_tokens=0, item_identity="id", min_item_count=1),
        model=ModelConfig(
            block="sasrec",
            d_model=50,
            n_layers=2,
            n_heads=1,
            n_kv_heads=1,
            ffn_multiple=1.0,
            max_history=200,
            dropout=0.2,
            head_options={"copy_head": False},
        ),
        pretrain=PretrainConfig(steps=0),
        training=TrainingConfig(
            max_steps=10_000,
            patience=10,
            batch_tokens=4096,
            learning_rate=1e-3,
            weight_decay=0.0,
            warmup_steps=1,
            objectives={"next_item": 1.0},
            events_only=True,
            id_dropout=0.0,
            ema_decay=0.0,
            full_softmax_items=50_000,
        ),
    )


def esasrec() -> RunConfig:
    """Make eSASRec (2508.06450): SASRec's task with LiGR blocks and a softmax over 256 sampled negatives."""
    base = sasrec()
    return replace(
        base,
        name="esasrec",
        model=replace(base.model, block="ligr", d_model=64, ffn_multiple=4.0),
        training=replace(base.training, n_negatives=256, full_softmax_items=ALWAYS_SAMPLED),
    )


def hstu() -> RunConfig:
    """Make HSTU (2402.17152): told the time of the request; cosines over .05 and 128 sampled negatives."""
    base = sasrec()
    return replace(
        base,
        name="hstu",
        model=replace(
            base.model, block="hstu", head_options={"copy_head": False, "normalise": True, "temperature": 0.05}
        ),
        training=replace(base.training, n_negatives=128, full_softmax_items=ALWAYS_SAMPLED),
    )


def hstu_mixture() -> RunConfig:
    """Make HSTU with a mixture of logits in place of the cosine (2407.15462); without its vector of the user's id."""
    base = hstu()
    options: dict[str, float | int | str | bool] = {"copy_head": False, "width": 64, "hidden": 128}
    return replace(base, name="hstu-mixture", model=replace(base.model, head="mixture_of_logits", head_options=options))


def tiger() -> RunConfig:
    """Make TIGER (2305.05065): items named by codes of their content, and found by writing codes, with beams.

    Codes are residual k-means in place of a residual autoencoder; the encoder is this project's causal decoder.
    """
    base = sasrec()
    return replace(
        base,
        name="tiger",
        model=ModelConfig(
            d_model=128,
            n_layers=4,
            n_heads=4,
            n_kv_heads=4,
            max_history=20,
            head="semantic_codes",
            head_options={"decoder_layers": 4},
        ),
        training=replace(base.training, learning_rate=5e-4, warmup_steps=100),
    )


PRESETS: dict[str, Preset] = {
    "sasrec": Preset(make=sasrec, purpose="what comes next, by order alone", source="1808.09781", time="hours"),
    "esasrec": Preset(make=esasrec, purpose="what comes next, by order alone", source="2508.06450", time="hours"),
    "hstu": Preset(make=hstu, purpose="what comes next, by order and time", source="2402.17152", time="hours"),
    "hstu-mixture": Preset(make=hstu_mixture, purpose="as hstu, a stronger score", source="2407.15462", time="hours"),
    "tiger": Preset(make=tiger, purpose="what comes next, items by content", source="2305.05065", time="hours"),
}
