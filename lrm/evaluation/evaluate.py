"""From predictions to the verdict: metrics with intervals, comparisons, slices, calibration, and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lrm.evaluation.estimates import (
    CHALLENGER,
    CHAMPION,
    Comparison,
    Statistics,
    as_json,
    calibration_compared,
    compare,
    number,
    ranking_statistics,
    retrieval_statistics,
    slice_statistics,
)
from lrm.evaluation.gate.alpha_spending import as_json as looks_json
from lrm.evaluation.gate.gate import decide
from lrm.evaluation.gate.gate_inputs import Facts, GateInputs, RuleResult
from lrm.evaluation.held_out import HeldOut, Predictions
from lrm.evaluation.metrics.bootstrap import Draws, draw_users, interval
from lrm.evaluation.metrics.metrics import calibration, probability
from lrm.evaluation.policy import RANKING, RETRIEVAL, Policy
from lrm.evaluation.slices import slices
from lrm.progress import progress
from lrm.schema import USER_ID


def evaluate(
    held_out: HeldOut,
    predictions: Mapping[str, Predictions],
    policy: Policy,
    *,
    seed: int,
    masked: bool,
    facts: Facts = Facts(),  # noqa: B008 - a tuple
) -> dict[str, Any]:
    """Turn answers into numbers with intervals, comparisons, slices, a calibration curve and a verdict.

    Args:
        held_out: what was asked.
        predictions: of `challenger`, perhaps of `champion`, and of the baselines.
        policy: intervals and the gate.
        seed: of the draws of users.
        masked: report retrieval once more without the items that a history holds.
        facts: what is known of the two models besides their answers.

    Returns:
        The main part of `evaluation.json`.
    """
    confidence = policy.decision.confidence
    rng = np.random.default_rng(seed)
    draws = draw_users(held_out.tables.requests[USER_ID].n_unique(), policy.decision.n_resamples, rng)
    statistics = _statistics(held_out, predictions, draws, masked=masked)
    comparisons = _compared(held_out, predictions, draws, statistics, confidence=confidence)
    at_look = _at_look(held_out, predictions, draws, statistics, policy, facts)
    parts, part_comparisons = _on_slices(held_out, predictions, draws, policy)
    by_model = _by_model(statistics, predictions)
    inputs = GateInputs(
        comparisons=comparisons + part_comparisons,
        values={
            model: {
                task: {metric: interval(value, confidence=confidence) for metric, value in metrics.items()}
                for task, metrics in tasks.items()
            }
            for model, tasks in by_model.items()
        },
        n_users=held_out.n_users(),
        has_champion=CHAMPION in predictions,
        k=held_out.k,
        faults=_faults(predictions, CHALLENGER),
        champion_faults=_faults(predictions, CHAMPION),
        facts=facts,
        at_look=at_look,
    )
    decision = decide(inputs, policy)
    return {
        "verdict": decision.verdict,
        "reasons": decision.reasons,
        "rules": [_finding_json(rule_result) for rule_result in decision.rule_results],
        "looks": looks_json(facts.looks, confidence),
        "primary": dict(zip(("task", "metric"), inputs.main_metrics(policy)[0], strict=True)),
        "models": _models_json(held_out, by_model, confidence),
        "comparisons": [_comparison_json(row) for row in comparisons],
        "slices": parts,
        "slice_comparisons": [{"slice": row.slice} | _comparison_json(row) for row in part_comparisons],
        "calibration": _calibration(held_out, predictions[CHALLENGER]),
        "tasks": _sizes(held_out),
        "seconds": {name: round(prediction.seconds, 2) for name, prediction in predictions.items()},
    }


def _by_model(
    statistics: Mapping[str, Mapping[str, Statistics]], predictions: Mapping[str, Predictions]
) -> dict[str, dict[str, Statistics]]:
    """{model: {task: statistics}}, models in the order of their predictions."""
    return {
        model: {task: models[model] for task, models in statistics.items() if model in models} for model in predictions
    }


def _models_json(
    held_out: HeldOut, by_model: Mapping[str, Mapping[str, Statistics]], confidence: float
) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        model: {
            task: {
                metric: as_json(value, confidence=confidence) | {"n_requests": n_requests(held_out, task, metric)}
                for metric, value in metrics.items()
            }
            for task, metrics in tasks.items()
        }
        for model, tasks in by_model.items()
    }


def _faults(predictions: Mapping[str, Predictions], model: str) -> tuple[str, ...]:
    return (predictions[model].fault,) if model in predictions and predictions[model].fault else ()


def _at_look(
    held_out: HeldOut,
    predictions: Mapping[str, Predictions],
    draws: Draws,
    statistics: Mapping[str, Mapping[str, Statistics]],
    policy: Policy,
    facts: Facts,
) -> tuple[Comparison, ...]:
    """The deciding comparisons at the confidence that this look has, where the test data were looked at before."""
    if not facts.looks.n_earlier:
        return ()
    confidence = facts.looks.confidence(policy.decision.confidence)
    rows = _compared(held_out, predictions, draws, _only(statistics, policy.decision.primary), confidence=confidence)
    return tuple(row._replace(confidence=confidence) for row in rows)


def n_requests(held_out: HeldOut, task: str, metric: str) -> int:
    """Test requests that a metric rests on; NDCG within candidates rests on those with a positive one alone."""
    if task == RETRIEVAL and held_out.retrieval is not None:
        return held_out.retrieval.request_ids.size
    assert held_out.ranking is not None
    rows = held_out.ranking
    return rows.request_ids.size if metric.partition("@")[0] != "ndcg" else np.unique(rows.request[rows.label > 0]).size


def _statistics(
    held_out: HeldOut, predictions: Mapping[str, Predictions], draws: Draws, *, masked: bool
) -> dict[str, dict[str, Statistics]]:
    """{task: {model: {metric: statistic}}}."""
    found: dict[str, dict[str, Statistics]] = {}
    for name, prediction in predictions.items():
        if held_out.retrieval is not None and prediction.ranks is not None:
            numbers = retrieval_statistics(
                draws, held_out.retrieval, prediction.ranks, k=held_out.k, masked=masked, head=held_out.head
            )
            found.setdefault(RETRIEVAL, {})[name] = numbers
        if held_out.ranking is not None and prediction.logits is not None:
            found.setdefault(RANKING, {})[name] = ranking_statistics(
                draws, held_out.ranking, prediction.logits, k=held_out.k
            )
    return found


def _only(
    statistics: Mapping[str, Mapping[str, Statistics]], metrics: Mapping[str, str]
) -> dict[str, dict[str, Statistics]]:
    """Of each task one metric, at whatever k."""
    return {
        task: {
            model: {name: each for name, each in found.items() if name.partition("@")[0] == metrics[task]}
            for model, found in models.items()
        }
        for task, models in statistics.items()
    }


def _compared(
    held_out: HeldOut,
    predictions: Mapping[str, Predictions],
    draws: Draws,
    statistics: Mapping[str, Mapping[str, Statistics]],
    *,
    confidence: float,
) -> list[Comparison]:
    """The challenger against every other model on all of each task."""
    rows = [
        row
        for task, models in statistics.items()
        if CHALLENGER in models
        for row in compare(models, task=task, confidence=confidence)
    ]
    logits = {name: prediction.logits for name, prediction in predictions.items() if prediction.logits is not None}
    if held_out.ranking is None:
        return rows
    return [
        calibration_compared(row, draws, held_out.ranking, logits, confidence=confidence)
        if row.metric == "ece"
        else row
        for row in rows
    ]


def _on_slices(
    held_out: HeldOut, predictions: Mapping[str, Predictions], draws: Draws, policy: Policy
) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Rows of every model on every slice, and the challenger against the champion there."""
    ranks = {name: prediction.ranks for name, prediction in predictions.items() if prediction.ranks is not None}
    logits = {name: prediction.logits for name, prediction in predictions.items() if prediction.logits is not None}
    confidence = policy.decision.confidence
    rows: list[dict[str, Any]] = []
    comparisons: list[Comparison] = []
    for part in progress(
        slices(held_out.tables, (*held_out.signals, *held_out.retired), held_out.seen), what="slices", unit="slice"
    ):
        numbers = slice_statistics(
            draws,
            part,
            retrieval=held_out.retrieval,
            ranking=held_out.ranking,
            ranks=ranks,
            logits=logits,
            k=held_out.k,
        )
        for (task, metric), models in numbers.items():
            for model, value in models.items():
                if value.n_users:
                    cell = as_json(value, confidence=confidence)
                    enough = value.n_users >= policy.slices.min_users
                    place = {"slice": part.name, "task": task, "metric": metric, "model": model}
                    rows.append(place | cell | {"is_conclusive": enough})
            pair = {name: {metric: models[name]} for name in (CHALLENGER, CHAMPION) if name in models}
            if len(pair) == 2 and models[CHALLENGER].n_users:
                comparisons += compare(
                    pair, task=task, confidence=confidence, slice_name=part.name, margin=policy.slices.margin
                )
    return rows, comparisons


def _finding_json(rule_result: RuleResult) -> dict[str, Any]:
    """A rule's row; the difference that it judged and the bar it was held against where there are any."""
    told = {name: getattr(rule_result, name) for name in ("rule", "asked", "seen", "outcome", "verdict")}
    if rule_result.estimate is None:
        return told
    numbers = {name: number(value) for name, value in rule_result.estimate._asdict().items()}
    return told | numbers | {"bar": rule_result.bar}


def _comparison_json(row: Comparison) -> dict[str, Any]:
    numbers = {name: number(getattr(row, name)) for name in ("difference", "low", "high")}
    numbers["p_worse"] = float(f"{row.p_worse:.3g}")
    return {"task": row.task, "metric": row.metric, "against": row.against} | numbers | {"n_users": row.n_users}


def _calibration(held_out: HeldOut, predictions: Predictions) -> list[list[float]]:
    if held_out.ranking is None or predictions.logits is None:
        return []
    bins = calibration(probability(predictions.logits), held_out.ranking.label)
    return [[round(float(p), 6), round(float(o), 6), int(n)] for p, o, n in zip(*bins, strict=True)]


def _sizes(held_out: HeldOut) -> dict[str, dict[str, int]]:
    """How much each task asked."""
    found: dict[str, dict[str, int]] = {}
    if held_out.retrieval is not None:
        asked = held_out.retrieval
        found[RETRIEVAL] = {
            "users": int(np.unique(asked.user).size),
            "requests": asked.request_ids.size,
            "targets": asked.item.size,
        }
    if held_out.ranking is not None:
        rows = held_out.ranking
        found[RANKING] = {
            "users": int(np.unique(rows.user).size),
            "requests": rows.request_ids.size,
            "rows": rows.label.size,
            "positives": int(rows.label.sum()),
        }
    return found
