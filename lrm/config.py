"""Every knob of a run on one page: frozen dataclasses and named presets.

A preset is a function of nothing that returns a `RunConfig`. The resolved configuration travels inside the model
artifact as JSON, so a version can always say how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, get_type_hints

from lrm.errors import SchemaError

SOFT, TEXT, HYBRID, NONE = "soft", "text", "hybrid", "none"
NOISE, FROZEN, SHUFFLED, CONSTANT = "noise", "frozen", "shuffled", "constant"
ARMS = (SOFT, TEXT, HYBRID, NONE, NOISE, FROZEN, SHUFFLED, CONSTANT)
"""How signals reach the prompt; `lrm.tokens.arms` says what each is."""
LINEAR, ATTENTION = "linear", "attention"
BUDGETS = (1, 2, 4, 8, 16)
"""Tokens of a group that an elastic model is trained for."""


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value <= 0:
            raise ValueError(f"{type(owner).__name__}.{name} must be positive, got {value}")


def _among(owner: object, **allowed: tuple[str, ...]) -> None:
    for name, values in allowed.items():
        if getattr(owner, name) not in values:
            raise ValueError(
                f"{type(owner).__name__}.{name} must be one of {', '.join(values)}; got {getattr(owner, name)!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensConfig:
    """How signals become tokens."""

    arm: str = SOFT
    """How signals reach the prompt: one of `ARMS`."""
    n_event_tokens: int = 1
    """Prompt positions of one past event."""
    n_query_tokens: int = 2
    """Prompt positions that all query signals share."""
    n_candidate_tokens: int = 1
    """Prompt positions of one candidate."""
    query_in_candidates: bool = True
    """Whether a candidate's tokens are made of the request's signals too (`lrm.tokens.factory`)."""
    elastic: bool = False
    """Train so that the first 1, 2, 4, ... tokens of query and candidate are useful alone, for serving to choose."""
    text_events: bool = True
    """For the arm `text`: write out events too; otherwise only queries and candidates, and events stay soft."""
    text_budget: bool = False
    """For the arm `text`: shorten histories until a prompt is as long as it would be with soft tokens. Where that
    cannot be, nothing is trained (`Recommender.check_budget`)."""
    memory: str = NONE
    """Events beyond `max_history`: `none` forgets them; `linear` and `attention` compress them to `memory_tokens`."""
    memory_events: int = 256
    memory_tokens: int = 8
    item_identity: str = "both"
    """What names an item: its `id`, its `content`, or `both` together."""
    width: int = 16
    """Width of one signal's own embedding, before a maker mixes all of them."""
    n_buckets: int = 32
    """Quantile buckets of a dense signal; each bucket has an embedding, the value inside is added as a number."""
    min_item_count: int = 5
    """Training events below which an item shares the out-of-vocabulary row and lives by its content."""
    min_category_count: int = 10
    """Training rows below which a category is out of vocabulary."""

    def __post_init__(self) -> None:
        _positive(self, "width", "n_buckets", "min_item_count", "min_category_count")
        _positive(self, "n_event_tokens", "n_candidate_tokens", "memory_events", "memory_tokens")
        _among(self, arm=ARMS, memory=(NONE, LINEAR, ATTENTION), item_identity=("id", "content", "both"))
        if self.memory_events % self.memory_tokens:
            raise ValueError(
                f"memory_events {self.memory_events} must be a multiple of memory_tokens {self.memory_tokens}"
            )
        if self.n_query_tokens < 0:
            raise ValueError(f"TokensConfig.n_query_tokens must be at least 0, got {self.n_query_tokens}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The decoder."""

    block: str = "softmax_attention"
    """What its layers are: a file of `lrm/model/blocks`, or an installed part of another package."""
    block_options: dict[str, float | int | str | bool] = field(default_factory=dict)
    """Knobs of that block beside those below."""
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    n_kv_heads: int = 2
    """Key and value heads; fewer than `n_heads` is grouped-query attention (2305.13245)."""
    ffn_multiple: float = 2.0
    """Hidden width of the SwiGLU feed-forward layer over `d_model`."""
    max_history: int = 512
    """Events of a user that the decoder reads at most: the most recent ones."""
    dropout: float = 0.1
    repeats: bool = True
    """Whether what follows a request may be read off the user's own history (`lrm.model.repeats`). Where not, one
    learned number is added to the logits of all items in the history: it shuts them out where none comes twice."""

    def __post_init__(self) -> None:
        _positive(self, "d_model", "n_layers", "n_heads", "n_kv_heads", "ffn_multiple", "max_history")
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} must be an even multiple of n_heads {self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} must be a multiple of n_kv_heads {self.n_kv_heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Pretraining of the token factory, without the decoder."""

    steps: int = 350
    batch_rows: int = 2048
    """Candidates in a step, whose outcomes are predicted; fewer where that would show one twice."""
    signal_rows: int = 128
    """Rows of each table in a step whose hidden signals are predicted, and events that items are learned from. With a
    head for each signal these are the dear ones, and more of them make no better start."""
    outcome_weight: float = 10.0
    """Weight of the outcome loss, a fraction of a nat, beside the others of several nats each."""
    learning_rate: float = 1e-3
    mask_ratio: float = 0.3
    """Share of an example's signals hidden from the factory, to be predicted from its tokens."""
    temperature: float = 0.1
    """Of the contrastive agreement between items bought close together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Joint training of factory and decoder."""

    max_steps: int = 350
    """About how many optimizer steps, in whole epochs and at least one; early stopping on validation ends it sooner."""
    patience: int = 2
    """Epochs that are no better in validation before training stops (`lrm.training.validation`)."""
    batch_tokens: int = 8192
    """Valid tokens in a step: history, query and candidate together, in any arm counted as if they were soft."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 50
    clip_norm: float = 1.0
    objectives: dict[str, float] = field(
        default_factory=lambda: {"next_item": 1.0, "retrieval": 1.0, "ranking": 20.0}, hash=False
    )
    """Weight of each objective's loss. A name is a module of `lrm/training/objectives/`, or a part of another package
    (`lrm.parts`). The ranking loss is a fraction of a nat; the losses of next item and retrieval are several nats each.
    """
    events_only: bool = False
    """Learn from the next item at events alone, over windows cut anew in every epoch; training requests are left out.
    For data whose requests ask just that: what comes next."""
    id_dropout: float = 0.1
    """Share of item identities hidden in a step, so that content alone must do (see `forget_identities`)."""
    ema_decay: float = 0.98
    """Decay a step of a running average of the weights, which is what is validated and kept; 0 keeps the last ones."""
    bfloat16: bool = False
    """Matrix products of a step in bfloat16; weights, sums and the optimizer stay in float32."""
    n_negatives: int = 1024
    """Sampled-softmax negatives of a step, shared by its targets; catalogues up to `full_softmax_items` use all."""
    full_softmax_items: int = 5_000
    checkpoint_every_steps: int = 200

    def __post_init__(self) -> None:
        _positive(self, "max_steps", "patience", "batch_tokens", "learning_rate", "clip_norm", "n_negatives")
        if not self.objectives or min(self.objectives.values()) < 0:
            raise ValueError(
                f"TrainingConfig.objectives must name one objective or more, with weights of at least 0; "
                f"got {self.objectives}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """What is asked of a model; what its answers must amount to is the policy's (`policy.toml`)."""

    k: int = 10
    max_retrieval_requests: int = 4000
    """Test requests ranked against the whole catalogue; a seeded sample above that."""
    n_trees: int = 600
    """Boosting rounds at most of the gradient-boosted-trees baseline."""
    ledger_tokens: int = 160_000
    """Prompt tokens of test requests that are scored once more for each signal of the signal ledger; 0: no ledger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """All of a run's knobs; `name` is the preset it came from."""

    name: str = "default"
    tokens: TokensConfig = field(default_factory=TokensConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def events_read(self) -> int:
        """Latest events of a user that a score can depend on."""
        older = 0 if self.tokens.memory == NONE else self.tokens.memory_events
        return self.model.max_history + older


def default() -> RunConfig:
    """A laptop's run: minutes on two cores."""
    return RunConfig()


def tiny() -> RunConfig:
    """Seconds on small data: for tests and for a first look at new data. Not meant to recommend well."""
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
        evaluation=EvaluationConfig(n_trees=20, ledger_tokens=20_000),
    )


def of_arm(arm: str) -> RunConfig:
    """The default with another arm: same decoder, same data order, same seeds."""
    return RunConfig(tokens=TokensConfig(arm=arm))


def text_truncated() -> RunConfig:
    """The arm `text` in the prompt length of `soft`."""
    return RunConfig(tokens=TokensConfig(arm=TEXT, text_budget=True))


def of_memory(kind: str) -> RunConfig:
    """As far back as the default, the older half of the events compressed: a shorter prompt for long histories."""
    base = RunConfig()
    older = base.model.max_history // 2
    return RunConfig(
        tokens=TokensConfig(memory=kind, memory_events=older),
        model=ModelConfig(max_history=base.model.max_history - older),
    )


def elastic() -> RunConfig:
    """One model for every budget of tokens: sixteen for a query and for a candidate, of which fewer are useful too."""
    return RunConfig(tokens=TokensConfig(elastic=True, n_query_tokens=max(BUDGETS), n_candidate_tokens=max(BUDGETS)))


def sequential() -> RunConfig:
    """Order alone, no ranking task: what comes next, at every event of a history. Hours, not minutes."""
    return RunConfig(
        name="sequential",
        tokens=TokensConfig(n_query_tokens=0, min_item_count=1, min_category_count=5),
        model=ModelConfig(max_history=200, dropout=0.2, repeats=False),
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
    """`sequential` for short histories over items seen a handful of times: more dropout, and smaller steps."""
    base = sequential()
    return replace(
        base,
        name="sequential-sparse",
        model=replace(base.model, max_history=50, dropout=0.5),
        training=replace(base.training, batch_tokens=1024, learning_rate=1e-3, ema_decay=0.999),
    )


def large_data() -> RunConfig:
    """Ranking from a million outcomes and more: many more steps, the ranking loss leads, and no item is learned by
    heart. A quarter of an hour."""
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
    """Ranking from fewer than about 100,000 outcomes, mostly of users never trained on: what can be learned by heart is
    left out, and the ranking loss leads. A minute."""
    return RunConfig(
        name="small-data",
        tokens=TokensConfig(item_identity="content"),
        model=ModelConfig(n_layers=1, max_history=32, dropout=0.2, repeats=False),
        pretrain=PretrainConfig(steps=0),
        training=TrainingConfig(
            max_steps=150, learning_rate=1e-3, objectives={"next_item": 1.0, "retrieval": 1.0, "ranking": 100.0}
        ),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "default": default,
    "sequential": sequential,
    "sequential-sparse": sequential_sparse,
    "large-data": large_data,
    "small-data": small_data,
    "tiny": tiny,
    **{arm: partial(of_arm, arm) for arm in ARMS},
    "text-truncated": text_truncated,
    **{f"memory-{kind}": partial(of_memory, kind) for kind in (LINEAR, ATTENTION)},
    "elastic": elastic,
}


def preset(name: str) -> RunConfig:
    """The configuration of that name.

    Raises:
        SchemaError: no preset has that name.
    """
    if name not in PRESETS:
        raise SchemaError(f"no preset is called {name!r}; lrm/config.py has {', '.join(PRESETS)}")
    return replace(PRESETS[name](), name=name)


def to_json(config: RunConfig) -> str:
    """The configuration as JSON."""
    return json.dumps(asdict(config), indent=1)


def from_json(text: str) -> RunConfig:
    """The configuration that `to_json` wrote.

    Knobs of evaluation that are gone are passed over: they say how a model was judged, not how it answers.

    Raises:
        SchemaError: a knob in the text is not one of this version's.
    """
    values = json.loads(text)
    values["tokens"] = {"query_in_candidates": False} | values.get("tokens", {})  # as before there was such a knob
    known = {knob.name for knob in fields(EvaluationConfig)}
    judged = {name: value for name, value in values.get("evaluation", {}).items() if name in known}
    config: RunConfig = _build(RunConfig, values | {"evaluation": judged})
    return config


def _build(kind: Any, values: dict[str, Any]) -> Any:
    hints = get_type_hints(kind)
    unknown = set(values) - {knob.name for knob in fields(kind)}
    if unknown:
        raise SchemaError(f"{kind.__name__} has no knob {sorted(unknown)[0]!r}; it was written by another version")
    return kind(**{k: _build(hints[k], v) if is_dataclass(hints[k]) else v for k, v in values.items()})
