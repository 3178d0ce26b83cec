"""The policy: what a challenger must show before it goes into service, read from reviewed files.

`policy.toml` at the top of the project holds every knob with its default and says what it means; `policy.toml` in a
feature repo overrules single knobs for that data.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lrm.errors import PolicyError
from lrm.storage import sha256_of

FILE = "policy.toml"
PLACE = "LRM_POLICY"
"""Environment variable that names the project's policy file where it is not beside the sources, as in an image."""
SHIPPED = Path(__file__).resolve().parents[2] / FILE
RETRIEVAL, RANKING = "retrieval", "ranking"
METRICS = {
    RANKING: ("auc", "log_loss", "ece", "ndcg"),
    RETRIEVAL: ("ndcg", "recall", "hit_rate", "mrr", "concentration"),
}
BASELINES = {
    "popular": (RANKING, RETRIEVAL),
    "own_history": (RETRIEVAL,),
    "ease_markov": (RETRIEVAL,),
    "trees": (RANKING,),
}
"""The baselines, each with the tasks that it answers."""
HOLM, BONFERRONI, NO_CORRECTION = "holm", "bonferroni", "none"

Numbers = Mapping[str, Mapping[str, float]]
"""{task: {metric: number}}."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionPolicy:
    """What decides, and how surely."""

    tasks: tuple[str, ...] = (RANKING, RETRIEVAL)
    primary: Mapping[str, str] = field(default_factory=lambda: {RANKING: "auc", RETRIEVAL: "ndcg"})
    min_gain: float = 0.001
    confidence: float = 0.95
    n_resamples: int = 10_000
    min_users: int = 50
    allow_backfill: bool = False

    def __post_init__(self) -> None:
        _among("decision.tasks", self.tasks, METRICS)
        _known_metrics("decision.primary", {task: {metric: 0.0} for task, metric in self.primary.items()})
        for task in METRICS:
            if task not in self.tasks or task not in self.primary:
                raise PolicyError(f"decision.tasks and decision.primary must name {task!r}; add it")
        _within("decision.min_gain", self.min_gain, low=0)
        _within("decision.confidence", self.confidence, low=0.5, high=0.9999)
        _within("decision.n_resamples", self.n_resamples, low=100)
        _within("decision.min_users", self.min_users, low=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstModelPolicy:
    """The bar for a model without a champion."""

    baselines: tuple[str, ...] = ("popular",)
    floors: Numbers = field(default_factory=lambda: {RANKING: {"auc": 0.5}})

    def __post_init__(self) -> None:
        _among("first_model.baselines", self.baselines, BASELINES)
        _known_metrics("first_model.floors", self.floors)
        for task, floors in self.floors.items():
            for metric, floor in floors.items():
                _within(f"first_model.floors.{task}.{metric}", floor, low=float("-inf"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SlicePolicy:
    """How far single slices may fall."""

    margin: float = 0.01
    min_users: int = 50
    correction: str = HOLM
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _within("slices.margin", self.margin, low=0)
        _within("slices.min_users", self.min_users, low=2)
        _among("slices.correction", (self.correction,), (HOLM, BONFERRONI, NO_CORRECTION))


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardrailPolicy:
    """What may not get worse, or too bad, whatever the gain."""

    min_coverage_ratio: float = 0.8
    max_latency_ratio: float = 1.5
    max_latency_p99_ms: float = 500.0
    max_bundle_ratio: float = 2.0
    max_bundle_mb: float = 1024.0
    critical_signals: tuple[str, ...] = ()
    min_recovered: float = 0.5

    def __post_init__(self) -> None:
        _within("guardrails.min_coverage_ratio", self.min_coverage_ratio, low=0, high=1)
        _within("guardrails.min_recovered", self.min_recovered, low=0, high=1)
        for name in ("max_latency_ratio", "max_latency_p99_ms", "max_bundle_ratio", "max_bundle_mb"):
            _within(f"guardrails.{name}", getattr(self, name), low=1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class StagingPolicy:
    """Whether the staging check must have run."""

    required: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakagePolicy:
    """From where on a signal is taken for a leak."""

    max_signal_auc: float = 0.95
    max_carried: float = 0.5
    max_gain: Numbers = field(
        default_factory=lambda: {
            RANKING: {"auc": 0.05, "log_loss": 0.05, "ndcg": 0.1},
            RETRIEVAL: {"ndcg": 0.1, "recall": 0.1, "hit_rate": 0.1, "mrr": 0.1},
        }
    )

    def __post_init__(self) -> None:
        _within("leakage.max_signal_auc", self.max_signal_auc, low=0.5, high=1)
        _within("leakage.max_carried", self.max_carried, low=0, high=1)
        _known_metrics("leakage.max_gain", self.max_gain)
        for task, gains in self.max_gain.items():
            for metric, gain in gains.items():
                _within(f"leakage.max_gain.{task}.{metric}", gain, low=1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Every knob of the gate; `policy.toml` says what each means."""

    decision: DecisionPolicy = field(default_factory=DecisionPolicy)
    first_model: FirstModelPolicy = field(default_factory=FirstModelPolicy)
    margins: Numbers = field(
        default_factory=lambda: {
            RANKING: {"auc": 0.005, "log_loss": 0.005, "ece": 0.005},
            RETRIEVAL: {"ndcg": 0.005, "recall": 0.005, "concentration": 0.05},
        }
    )
    slices: SlicePolicy = field(default_factory=SlicePolicy)
    guardrails: GuardrailPolicy = field(default_factory=GuardrailPolicy)
    staging: StagingPolicy = field(default_factory=StagingPolicy)
    leakage: LeakagePolicy = field(default_factory=LeakagePolicy)

    def __post_init__(self) -> None:
        _known_metrics("margins", self.margins)
        for task, margins in self.margins.items():
            for metric, margin in margins.items():
                _within(f"margins.{task}.{metric}", margin, low=0)


def files(feature_repo: Path | None) -> list[Path]:
    """The policy files that apply, the later overruling the earlier: the project's, then the feature repo's if any.

    Raises:
        PolicyError: the project's file is not there.
    """
    shipped = Path(os.environ.get(PLACE, SHIPPED))
    if not shipped.is_file():
        raise PolicyError(f"{shipped} is missing: no promotion without a policy; restore it, or name it in {PLACE}")
    own = [feature_repo / FILE] if feature_repo is not None and (feature_repo / FILE).is_file() else []
    return [shipped, *own]


def load(paths: list[Path]) -> Policy:
    """Read policy files, the later overruling the earlier knob by knob; what none of them says takes its default.

    Raises:
        PolicyError: a file is no TOML, or has an unknown knob, a value of the wrong type, or one out of range.
    """
    policy, values = Policy(), dict[str, Any]()
    for path in paths:
        try:
            values = _overruled(values, tomllib.loads(path.read_text()))
            policy = _build(Policy, values, "")
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"{path} is not TOML: {error}") from error
        except PolicyError as error:
            raise PolicyError(f"{path}: {error}") from None
    return policy


def as_json(policy: Policy, paths: list[Path]) -> dict[str, Any]:
    """What `evaluation.json` says of the policy: `values`, their `sha256`, and the sha256 of each file it came from.

    The hash is of the values in canonical JSON: two files that ask the same have the same hash, whatever they comment.
    """
    values = asdict(policy)
    names = [path.name if place == 0 else f"{path.parent.name}/{path.name}" for place, path in enumerate(paths)]
    hashes = [sha256_of(path) for path in paths]
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return {
        "values": values,
        "sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "files": [list(one) for one in zip(names, hashes, strict=True)],
    }


def _overruled(values: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _overruled(values[name], told)
        for name, told in by.items()
        if isinstance(told, dict) and isinstance(values.get(name), dict)
    }
    return {**values, **by, **both}


def _build(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {knob.name for knob in fields(kind)})
    if unknown:
        raise PolicyError(f"there is no knob {where}{unknown[0]}; policy.toml of the project lists all")
    found = {}
    for name, value in values.items():
        wanted = hints[name]
        if is_dataclass(wanted):
            found[name] = _build(wanted, _typed(value, dict, f"{where}{name}"), f"{where}{name}.")
        else:
            found[name] = _value(value, wanted, f"{where}{name}")
    return kind(**found)


def _value(value: Any, wanted: Any, name: str) -> Any:
    """A value of TOML as the type that a knob wants."""
    if wanted is float:
        return float(_typed(value, (int, float), name))
    if wanted == Numbers:
        tables = {task: _typed(metrics, dict, f"{name}.{task}") for task, metrics in _typed(value, dict, name).items()}
        return {
            task: {metric: _value(number, float, f"{name}.{task}.{metric}") for metric, number in metrics.items()}
            for task, metrics in tables.items()
        }
    if wanted == tuple[str, ...]:
        return tuple(_typed(one, str, name) for one in _typed(value, list, name))
    if wanted == Mapping[str, str]:
        return {key: _typed(one, str, f"{name}.{key}") for key, one in _typed(value, dict, name).items()}
    return _typed(value, wanted, name)


def _typed(value: Any, wanted: type | tuple[type, ...], name: str) -> Any:
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        words = {dict: "a table", list: "a list", str: "text", bool: "true or false", int: "a whole number"}
        expected = "a number" if float in kinds else words[kinds[0]]
        raise PolicyError(f"{name} must be {expected}, got {value!r}")
    return value


def _within(name: str, value: float, *, low: float, high: float = float("inf")) -> None:
    if not low <= value <= high:  # also where it is NaN
        bounds = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise PolicyError(f"{name} must be {bounds}, got {value:g}")


def _among(name: str, values: tuple[str, ...], allowed: Mapping[str, Any] | tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise PolicyError(f"{name} has {value!r}, which is none of {', '.join(allowed)}")


def _known_metrics(name: str, numbers: Numbers) -> None:
    _among(name, tuple(numbers), METRICS)
    for task, metrics in numbers.items():
        _among(f"{name}.{task}", tuple(metrics), METRICS[task])
