"""The presets that this project recommends, by the kind of data."""

from __future__ import annotations

from dataclasses import replace

from lrm.config import EvaluationConfig, ModelConfig, PretrainConfig, RunConfig, TokensConfig, TrainingConfig
from lrm.presets.preset import Preset


def default() -> RunConfig:
    """Make the configuration for a first run on a laptop."""
    return RunConfig()


def tiny() -> RunConfig:
    """Make a model that is trained within seconds and recommends badly: for tests, and for a first look at new data."""
    return RunConfig(
        name="tiny",
        tokens=TokensConfig(width=8, n_buckets=8, min_item_count=1, min_category_count=1),
        model=ModelConfig(d_model=16, n_layers=1, n_heads=1, n_kv_heads=1, max_history=32, dropout=0.0),
        pretrain=PretrainConfig(steps=20, batch_rows=128),
        training=TrainingConfig(
            max_steps=40,
            batch_tokens=2048,
            learning_rate=1e-2,
            warmup_steps=5,
            objectives={"next_item": 1.0, "retrieval": 1.0, "ranking": 1.0},
            ema_decay=0.0,
            checkpoint_every_steps=10,
        ),
        evaluation=EvaluationConfig(n_trees=20, importance_tokens=20_000),
    )


def sequential() -> RunConfig:
    """Learn from order alone, without a ranking task: what comes next at every event of a history."""
    return RunConfig(
        name="sequential",
        tokens=TokensConfig(n_query_tokens=0, min_item_count=1, min_category_count=5),
        model=ModelConfig(max_history=200, dropout=0.2, head_options={"copy_head": False}),
        training=TrainingConfig(
            max_steps=10_000,
            patience=10,
            batch_tokens=4096,
            warmup_steps=100,
            events_only=True,
            id_dropout=0.0,
            ema_decay=0.995,
            bfloat16=True,
            full_softmax_items=50_000,
        ),
    )


def sequential_sparse() -> RunConfig:
    """Make `sequential` for short histories over items seen a few times: more dropout and smaller steps."""
    base = sequential()
    return replace(
        base,
        name="sequential-sparse",
        model=replace(base.model, max_history=50, dropout=0.5),
        training=replace(base.training, batch_tokens=1024, learning_rate=1e-3, ema_decay=0.999),
    )


def large_data() -> RunConfig:
    """Rank with a million outcomes or more: more steps, a larger ranking loss, and no embedding for each item."""
    return RunConfig(
        name="large-data",
        tokens=TokensConfig(item_identity="content"),
        pretrain=PretrainConfig(steps=500),
        training=TrainingConfig(
            max_steps=1600,
            learning_rate=1e-3,
            objectives={"next_item": 1.0, "retrieval": 1.0, "ranking": 30.0},
            ema_decay=0.99,
        ),
    )


def small_data() -> RunConfig:
    """Rank with fewer than about 100,000 outcomes, mostly for new users: one layer and no embedding for each item."""
    return RunConfig(
        name="small-data",
        tokens=TokensConfig(item_identity="content"),
        model=ModelConfig(n_layers=1, max_history=32, dropout=0.2, head_options={"copy_head": False}),
        pretrain=PretrainConfig(steps=0),
        training=TrainingConfig(
            max_steps=150, learning_rate=1e-3, objectives={"next_item": 1.0, "retrieval": 1.0, "ranking": 100.0}
        ),
    )


PRESETS: dict[str, Preset] = {
    "default": Preset(make=default, purpose="retrieval and ranking, 100,000 to a million outcomes", time="minutes"),
    "sequential": Preset(make=sequential, purpose="what comes next, long histories", time="hours"),
    "sequential-sparse": Preset(make=sequential_sparse, purpose="what comes next, short histories", time="hours"),
    "large-data": Preset(make=large_data, purpose="ranking, a million outcomes or more", time="15 minutes"),
    "small-data": Preset(make=small_data, purpose="ranking, fewer than 100,000 outcomes", time="a minute"),
    "tiny": Preset(make=tiny, purpose="to see every step work; recommends badly", time="seconds"),
}
