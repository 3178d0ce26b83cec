"""Every knob of a run on one page, as frozen dataclasses. `lrm.presets` has the named configurations.

The configuration of a model is kept beside its weights as `config.json`, so a model always says how it was made.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from lrm.errors import SchemaError

SOFT, TEXT, HYBRID, NONE = "soft", "text", "hybrid", "none"
NOISE, FROZEN, SHUFFLED, CONSTANT = "noise", "frozen", "shuffled", "constant"
FORMAT = 1
"""Of `config.json`. It goes up when a knob is added, removed or renamed after the first release."""
VARIANTS = (SOFT, TEXT, HYBRID, NONE, NOISE, FROZEN, SHUFFLED, CONSTANT)
"""Ways in which signals reach the prompt (`lrm.tokens.makers`)."""
LINEAR, ATTENTION = "linear", "attention"
BUDGETS = (1, 2, 4, 8, 16)
"""Numbers of query and candidate tokens that an elastic model is trained for."""


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
    """How signals become tokens of the prompt."""

    variant: str = SOFT
    """How signals reach the prompt: a module of `lrm/tokens/makers/`, or a part of another package (`lrm.parts`)."""
    variant_options: dict[str, float | int | str | bool] = field(default_factory=dict, hash=False)
    """Options of that variant, by name."""
    n_event_tokens: int = 1
    """Tokens of one past event."""
    n_query_tokens: int = 2
    """Tokens of one request, for all query signals together."""
    n_candidate_tokens: int = 1
    """Tokens of one candidate."""
    query_in_candidates: bool = True
    """Whether the request's signals are an input of its candidates' tokens too (`lrm.tokens.factory`)."""
    elastic: bool = False
    """Train with 1, 2, 4, ... query and candidate tokens in turn, so that serving can choose how many it uses."""
    text_events: bool = True
    """With `variant="text"`: write events as text too. If False, only queries and candidates are text."""
    text_budget: bool = False
    """With `variant="text"`: shorten histories so that a prompt is no longer than with soft tokens. Training refuses to
    start if that is impossible (`Recommender.check_budget`)."""
    memory: str = NONE
    """Events before the last `max_history`: `none` drops them, `linear` and `attention` compress them."""
    memory_events: int = 256
    """Number of older events that are compressed."""
    memory_tokens: int = 8
    """Number of tokens that they are compressed to."""
    item_identity: str = "both"
    """What an item's token is made of: its `id`, its `content` signals, or `both`."""
    width: int = 16
    """Width of the embedding of one signal, before a maker mixes the signals."""
    n_buckets: int = 32
    """Quantile buckets of a dense signal. Each bucket has an embedding; the place inside it is added as a number."""
    min_item_count: int = 5
    """An item with fewer training events has no embedding of its own: it shares the out-of-vocabulary row."""
    min_category_count: int = 10
    """A category in fewer training rows is out of vocabulary."""

    def __post_init__(self) -> None:
        _positive(self, "width", "n_buckets", "min_item_count", "min_category_count")
        _positive(self, "n_event_tokens", "n_candidate_tokens", "memory_events", "memory_tokens")
        _among(self, memory=(NONE, LINEAR, ATTENTION), item_identity=("id", "content", "both"))
        if self.memory_events % self.memory_tokens:
            raise ValueError(
                f"memory_events {self.memory_events} must be a multiple of memory_tokens {self.memory_tokens}"
            )
        if self.n_query_tokens < 0:
            raise ValueError(f"TokensConfig.n_query_tokens must be at least 0, got {self.n_query_tokens}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The decoder and its item head."""

    block: str = "softmax_attention"
    """Kind of layer: a module of `lrm/model/blocks/`, or a part of another package (`lrm.parts`)."""
    block_options: dict[str, float | int | str | bool] = field(default_factory=dict, hash=False)
    """Options of that block, by name."""
    d_model: int = 64
    """Width of a token."""
    n_layers: int = 2
    n_heads: int = 2
    n_kv_heads: int = 2
    """Key and value heads. Fewer than `n_heads` makes grouped-query attention (2305.13245)."""
    ffn_multiple: float = 2.0
    """Hidden width of a feed-forward layer, as a multiple of `d_model`."""
    max_history: int = 512
    """The decoder reads at most this many events of a user: the latest ones."""
    dropout: float = 0.1
    head: str = "dot_product"
    """How an item is named, scored and found: a module of `lrm/model/heads/`, or a part of another package."""
    head_options: dict[str, float | int | str | bool] = field(default_factory=dict, hash=False)
    """Options of that head, by name. `dot_product` has `copy_head` (True): whether the model may copy the next item
    from the user's history. If False, one learned number is added to the logits of all items in the history. It
    excludes them in data where no item repeats."""

    def __post_init__(self) -> None:
        _positive(self, "d_model", "n_layers", "n_heads", "n_kv_heads", "ffn_multiple", "max_history")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of n_heads {self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} must be a multiple of n_kv_heads {self.n_kv_heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Pretraining of the token factory, without the decoder."""

    steps: int = 350
    """Optimizer steps; 0 skips pretraining."""
    batch_rows: int = 2048
    """Candidates in a step. There are fewer if the data has too few to show each candidate only once."""
    signal_rows: int = 128
    """Rows of each table in a step for the tasks that predict hidden signals and items. These tasks take most of the
    time of a step; more rows did not make a better start."""
    outcome_weight: float = 10.0
    """Weight of the outcome loss. It is a fraction of a nat; the other losses are several nats each."""
    learning_rate: float = 1e-3
    mask_ratio: float = 0.3
    """Share of signals that are hidden from the factory and predicted from its tokens."""
    temperature: float = 0.1
    """Temperature of the contrastive loss between items bought close together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Joint training of factory and decoder."""

    max_steps: int = 350
    """Optimizer steps, rounded to whole epochs (at least 1). Early stopping on validation can end training sooner."""
    patience: int = 2
    """Training stops after more than this many epochs without a better validation (`lrm.training.validation`)."""
    batch_tokens: int = 8192
    """Tokens in a step without padding. Every variant counts them as if its tokens were soft."""
    learning_rate: float = 2e-3
    """Peak of the schedule: linear warm-up, then a cosine down to a tenth."""
    weight_decay: float = 0.05
    warmup_steps: int = 50
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    objectives: dict[str, float] = field(
        default_factory=lambda: {"next_item": 1.0, "retrieval": 1.0, "ranking": 20.0}, hash=False
    )
    """Weight of each objective's loss. A name is a module of `lrm/training/objectives/`, or a part of another package
    (`lrm.parts`). The ranking loss is a fraction of a nat; the losses of next item and retrieval are several nats each.
    """
    objective_options: dict[str, dict[str, float]] = field(default_factory=dict, hash=False)
    """Options of an objective, by its name."""
    events_only: bool = False
    """Learn only from the next item at events, over windows that every epoch cuts anew, and leave training requests
    out. For data whose requests ask only what comes next."""
    id_dropout: float = 0.1
    """Share of item ids that a step hides, so that the model learns to use content alone."""
    ema_decay: float = 0.98
    """Decay of an exponential moving average of the weights, which is validated and kept; 0 keeps the last weights."""
    bfloat16: bool = False
    """Compute matrix products in bfloat16. Weights, sums and the optimizer stay in float32."""
    n_negatives: int = 1024
    """Negatives of a step for the sampled softmax, shared by all its targets."""
    negatives_power: float = 0.75
    """Negatives are drawn in proportion to popularity to this power (word2vec, 1310.4546); 0 draws all items alike."""
    full_softmax_items: int = 5_000
    """A catalogue of at most this many items uses the full softmax."""
    checkpoint_every_steps: int = 200
    """Steps between checkpoints, from which a stopped run continues."""

    def __post_init__(self) -> None:
        _positive(self, "max_steps", "patience", "batch_tokens", "learning_rate", "clip_norm", "n_negatives")
        if not self.objectives or min(self.objectives.values()) < 0:
            raise ValueError(
                f"TrainingConfig.objectives must name one objective or more, with weights of at least 0; "
                f"got {self.objectives}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """What is measured. The policy (`policy.toml`) says how good a model must be."""

    k: int = 10
    """Length of the lists that metrics judge."""
    max_retrieval_requests: int = 4000
    """At most this many test requests are ranked against the whole catalogue: a sample, drawn with the seed."""
    n_trees: int = 600
    """Boosting rounds of the baseline of gradient-boosted trees, at most."""
    importance_tokens: int = 160_000
    """Prompt tokens of the test requests that are scored again for each signal in the feature report; 0: no report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """All knobs of a run; `name` is the preset they come from."""

    name: str = "default"
    tokens: TokensConfig = field(default_factory=TokensConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def events_read(self) -> int:
        """Number of latest events of a user that a score can depend on."""
        older = 0 if self.tokens.memory == NONE else self.tokens.memory_events
        return self.model.max_history + older


def to_json(config: RunConfig) -> str:
    """Write the configuration as JSON, with the number of its format."""
    return json.dumps({"format": FORMAT} | asdict(config), indent=1)


def from_json(text: str) -> RunConfig:
    """Read what `to_json` wrote.

    Raises:
        SchemaError: the text has another format, or its knobs are not exactly those of this version.
    """
    values = json.loads(text)
    written = values.pop("format", None)
    if written != FORMAT:
        seen = "no format number" if written is None else f"format {written}"
        raise SchemaError(
            f"the configuration has {seen}, and this version reads format {FORMAT}; train the model again, or use the "
            "version that wrote it"
        )
    config: RunConfig = _build(RunConfig, values)
    return config


def _build(kind: Any, values: dict[str, Any]) -> Any:
    hints, knobs = get_type_hints(kind), {knob.name for knob in fields(kind)}
    for names, verb in ((set(values) - knobs, "has no"), (knobs - set(values), "needs the")):
        if names:
            raise SchemaError(f"{kind.__name__} {verb} knob {min(names)!r}; the file was written by another version")
    return kind(**{k: _build(hints[k], v) if is_dataclass(hints[k]) else v for k, v in values.items()})
