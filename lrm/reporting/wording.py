"""How the report says things: names of models and metrics, and numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeGuard

MODELS = {
    "challenger": "Challenger",
    "champion": "Champion",
    "popular": "Most popular",
    "own_history": "Own history",
    "ease_markov": "EASE + Markov",
    "history_by_ranker": "Own history, sorted by the ranking head",
    "history_by_trees": "Own history, sorted by the trees",
    "trees": "Boosted trees",
}
"""Display names, in the order in which models are shown; other models follow under their own name."""

UNKNOWN = "\N{EN DASH}"
"""Stands where a number is missing."""
TASKS = {"retrieval": "Retrieval", "ranking": "Ranking"}
_METRICS = {"auc": "AUC", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "ece": "ECE"}
_LOWER_IS_BETTER = ("loss", "error", "brier", "ece", "perplexity", "rmse", "concentration")


def model_name(model: str) -> str:
    """A model's display name."""
    return MODELS.get(model, model.replace("_", " "))


def in_model_order(models: Iterable[str]) -> list[str]:
    """Challenger and champion first, then the baselines."""
    known = list(MODELS)
    return sorted(models, key=lambda model: known.index(model) if model in known else len(known))


def metric_name(metric: str) -> str:
    """A metric's display name: `hit_rate@10` is "Hit rate @10"."""
    stem, at, k = metric.partition("@")
    words = [_METRICS.get(word, word) for word in stem.split("_")]
    name = " ".join(words)
    return f"{name[:1].upper()}{name[1:]}{' ' + at + k if at else ''}"


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of this metric or curve is the better one."""
    return any(word in metric.lower().replace("@", "_").split("_") for word in _LOWER_IS_BETTER)


def best_of(metric: str, values: Sequence[float]) -> int:
    """The position of the best of these values (at least one)."""
    return values.index(min(values) if is_lower_better(metric) else max(values))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether this is a finite number, rather than nothing, text or NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any) -> str:
    """A metric with four decimals; a dash where there is none."""
    if not is_number(value):
        return UNKNOWN
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def signed(value: Any) -> str:
    """A difference with its sign, a true minus rather than a hyphen."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}") if is_number(value) else UNKNOWN


def count(value: Any) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}" if is_number(value) else UNKNOWN


def seconds(value: Any) -> str:
    """A duration: `0.4 s`, `12 s`, `3 min 05 s`."""
    if not is_number(value):
        return UNKNOWN
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(value: Any) -> str:
    """Megabytes."""
    return f"{value:,.0f} MB" if is_number(value) else UNKNOWN


def instant(value: Any) -> str:
    """An ISO instant as `2024-03-01 17:20`, midnight as the date alone; other text as it is."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    return when.strftime("%Y-%m-%d %H:%M").removesuffix(" 00:00")


def cut(value: object, n_letters: int = 120) -> str:
    """A value as text of bounded length; `null` for None."""
    text = "null" if value is None else str(value)
    return text if len(text) <= n_letters else text[: n_letters - 1] + "…"
