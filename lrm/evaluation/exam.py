"""The examination: one set of questions, the answers of every model to it, and what they amount to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lrm.config import EvaluationConfig
from lrm.errors import DataError
from lrm.evaluation.baselines import EaseMarkov, OwnHistory, Popular
from lrm.evaluation.estimates import (
    CHALLENGER,
    CHAMPION,
    POPULAR,
    RANKING,
    RETRIEVAL,
    Comparison,
    Statistics,
    as_json,
    compare,
    number,
    ranking_statistics,
    retrieval_statistics,
    slice_statistics,
)
from lrm.evaluation.gate import Evidence, decide, primary_metric
from lrm.evaluation.metrics import Floats, calibration, probability
from lrm.evaluation.ranking import (
    Histories,
    Ranker,
    Ranking,
    Ranks,
    Retrieval,
    Retriever,
    histories,
    rank_targets,
    ranking_task,
    retrieval_task,
)
from lrm.evaluation.slices import slices
from lrm.evaluation.statistics import Draws, draw_users
from lrm.evaluation.trees import Trees
from lrm.features.tables import Tables
from lrm.progress import progress
from lrm.schema import TRAIN, USER_ID, Signal

EASE_MARKOV, OWN_HISTORY, TREES = "ease_markov", "own_history", "trees"


class Exam(NamedTuple):
    """What every model is asked."""

    tables: Tables
    signals: tuple[Signal, ...]
    seen: Histories
    retrieval: Retrieval | None
    ranking: Ranking | None

    def n_users(self) -> dict[str, int]:
        """Test users of each task that there is."""
        tasks = {RETRIEVAL: self.retrieval, RANKING: self.ranking}
        return {name: int(np.unique(task.user).size) for name, task in tasks.items() if task is not None}


class Answers(NamedTuple):
    """One model's answers; None where it was not asked, or where an answer is not a finite number (see `fault`)."""

    ranks: Ranks | None
    logits: Floats | None
    fault: str
    """A sentence, empty when all is well."""
    seconds: float


def prepare(tables: Tables, signals: tuple[Signal, ...], config: EvaluationConfig, *, seed: int) -> Exam:
    """Set the questions: the same for the same examples and seed, whoever is asked.

    Raises:
        DataError: no test request has a target or a candidate.
    """
    rng = np.random.default_rng(seed)
    retrieval = retrieval_task(tables, max_requests=config.max_retrieval_requests, rng=rng)
    ranking = ranking_task(tables)
    if retrieval is None and ranking is None:
        raise DataError(
            "no test request has a target or a candidate, so there is nothing to evaluate; "
            "check test_days and as_of in dataset.json against the last events"
        )
    return Exam(tables, signals, histories(tables), retrieval, ranking)


def ask(exam: Exam, name: str, *, retriever: Retriever | None, ranker: Ranker | None) -> Answers:
    """Let a model answer whatever it can answer and the exam asks."""
    started = time.perf_counter()
    ranks = logits = None
    faults = []
    if exam.retrieval is not None and retriever is not None:
        ranks = rank_targets(retriever, exam.retrieval, exam.seen, tables=exam.tables, name=name)
        if ranks.n_not_finite:
            faults.append(f"{ranks.n_not_finite:,} item scores")
    if exam.ranking is not None and ranker is not None:
        logits = np.asarray(ranker.candidate_logits(exam.ranking.request_ids))
        if logits.shape != exam.ranking.label.shape:
            raise DataError(
                f"{name} gave logits of shape {logits.shape} for {exam.ranking.label.size} candidate rows; "
                "give one logit for each row of the requests asked for"
            )
        bad = logits.size - int(np.count_nonzero(np.isfinite(logits)))
        if bad:
            faults.append(f"{bad:,} of {logits.size:,} candidate logits")
    seconds = time.perf_counter() - started
    if faults:
        return Answers(None, None, f"The {name} is broken: {' and '.join(faults)} are NaN or infinite.", seconds)
    return Answers(ranks, logits, "", seconds)


def ask_baselines(exam: Exam, config: EvaluationConfig, *, seed: int) -> dict[str, Answers]:
    """Fit the baselines on the training split, and let them answer; seconds include the fit."""
    found = {}
    for name, fit in progress(_baselines(exam, config, seed).items(), what="baselines", unit="model"):
        started = time.perf_counter()
        retriever, ranker = fit()
        answers = ask(exam, name, retriever=retriever, ranker=ranker)
        found[name] = answers._replace(seconds=time.perf_counter() - started)
    return found


def _baselines(
    exam: Exam, config: EvaluationConfig, seed: int
) -> dict[str, Callable[[], tuple[Retriever | None, Ranker | None]]]:
    def popular() -> tuple[Retriever | None, Ranker | None]:
        model = Popular(exam.tables, exam.seen)
        return model, model

    found: dict[str, Callable[[], tuple[Retriever | None, Ranker | None]]] = {POPULAR: popular}
    if exam.retrieval is not None:
        found[OWN_HISTORY] = lambda: (OwnHistory(exam.tables, exam.seen), None)
        found[EASE_MARKOV] = lambda: (EaseMarkov(exam.tables, exam.seen), None)
    train = ranking_task(exam.tables, split=TRAIN) if exam.ranking is not None else None
    if train is not None and 0 < train.label.mean() < 1:
        found[TREES] = lambda: (None, Trees(exam.tables, exam.signals, n_trees=config.n_trees, seed=seed))
    return found


def mark(
    exam: Exam,
    answers: Mapping[str, Answers],
    config: EvaluationConfig,
    *,
    seed: int,
    masked: bool,
    is_identical: bool = False,
    is_backfill: bool = False,
    allow_backfill: bool = False,
) -> dict[str, Any]:
    """Turn answers into numbers with intervals, comparisons, slices, a calibration curve and a verdict.

    Args:
        exam: what was asked.
        answers: of `challenger`, perhaps of `champion`, and of the baselines.
        config: intervals and the gate.
        seed: of the draws of users.
        masked: report retrieval once more without the items that a history holds.
        is_identical: challenger and champion have the same weights.
        is_backfill: the data end in the past by request.
        allow_backfill: let such data promote all the same.

    Returns:
        The main part of `evaluation.json`.
    """
    draws = draw_users(exam.tables.requests[USER_ID].n_unique(), config.n_bootstrap, np.random.default_rng(seed))
    statistics = _statistics(exam, answers, draws, config, masked=masked)
    n_users = exam.n_users()
    comparisons = [
        row
        for task, models in statistics.items()
        if CHALLENGER in models
        for row in compare(models, task=task, confidence=config.confidence)
    ]
    parts, part_comparisons = _on_slices(exam, answers, draws, config)
    decision = decide(
        Evidence(
            comparisons=comparisons + part_comparisons,
            n_users=n_users,
            has_champion=CHAMPION in answers,
            faults=tuple(filter(None, [answers[CHALLENGER].fault])),
            champion_faults=tuple(filter(None, [answers[CHAMPION].fault if CHAMPION in answers else ""])),
            is_identical=is_identical,
            is_backfill=is_backfill,
            allow_backfill=allow_backfill,
        ),
        config,
    )
    return {
        "verdict": decision.verdict,
        "reasons": decision.reasons,
        "primary": dict(zip(("task", "metric"), primary_metric(n_users, k=config.k), strict=True)),
        "models": {
            model: {
                task: {metric: as_json(value, confidence=config.confidence) for metric, value in models[model].items()}
                for task, models in statistics.items()
                if model in models
            }
            for model in answers
        },
        "comparisons": [_comparison_json(row) for row in comparisons],
        "slices": parts,
        "slice_comparisons": [{"slice": row.slice} | _comparison_json(row) for row in part_comparisons],
        "calibration": _calibration(exam, answers[CHALLENGER]),
        "tasks": _sizes(exam),
        "seconds": {name: round(answer.seconds, 2) for name, answer in answers.items()},
    }


def _statistics(
    exam: Exam, answers: Mapping[str, Answers], draws: Draws, config: EvaluationConfig, *, masked: bool
) -> dict[str, dict[str, Statistics]]:
    """{task: {model: {metric: statistic}}}."""
    found: dict[str, dict[str, Statistics]] = {}
    for name, answer in answers.items():
        if exam.retrieval is not None and answer.ranks is not None:
            numbers = retrieval_statistics(draws, exam.retrieval, answer.ranks, k=config.k, masked=masked)
            found.setdefault(RETRIEVAL, {})[name] = numbers
        if exam.ranking is not None and answer.logits is not None:
            found.setdefault(RANKING, {})[name] = ranking_statistics(draws, exam.ranking, answer.logits, k=config.k)
    return found


def _on_slices(
    exam: Exam, answers: Mapping[str, Answers], draws: Draws, config: EvaluationConfig
) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Rows of every model on every slice, and the challenger against the champion there."""
    ranks = {name: answer.ranks for name, answer in answers.items() if answer.ranks is not None}
    logits = {name: answer.logits for name, answer in answers.items() if answer.logits is not None}
    n_users = exam.n_users()
    rows: list[dict[str, Any]] = []
    comparisons: list[Comparison] = []
    for part in progress(slices(exam.tables, exam.signals, exam.seen), what="slices", unit="slice"):
        numbers = slice_statistics(
            draws, part, retrieval=exam.retrieval, ranking=exam.ranking, ranks=ranks, logits=logits, k=config.k
        )
        for (task, metric), models in numbers.items():
            for model, value in models.items():
                if value.n_users:
                    cell = as_json(value, confidence=config.confidence)
                    enough = value.n_users >= config.min_users
                    place = {"slice": part.name, "task": task, "metric": metric, "model": model}
                    rows.append(place | cell | {"is_conclusive": enough})
            pair = {name: {metric: models[name]} for name in (CHALLENGER, CHAMPION) if name in models}
            if len(pair) == 2 and models[CHALLENGER].n_users:
                comparisons += compare(
                    pair, task=task, confidence=config.confidence, slice_name=part.name, n_users=n_users[task]
                )
    return rows, comparisons


def _comparison_json(row: Comparison) -> dict[str, Any]:
    numbers = {name: number(getattr(row, name)) for name in ("difference", "low", "high", "p_worse")}
    return {"task": row.task, "metric": row.metric, "against": row.against} | numbers | {"n_users": row.n_users}


def _calibration(exam: Exam, answers: Answers) -> list[list[float]]:
    if exam.ranking is None or answers.logits is None:
        return []
    bins = calibration(probability(answers.logits), exam.ranking.label)
    return [[round(float(p), 6), round(float(o), 6), int(n)] for p, o, n in zip(*bins, strict=True)]


def _sizes(exam: Exam) -> dict[str, dict[str, int]]:
    """How much each task asked."""
    found: dict[str, dict[str, int]] = {}
    users = exam.n_users()
    if exam.retrieval is not None:
        asked = exam.retrieval
        found[RETRIEVAL] = {"users": users[RETRIEVAL], "requests": asked.request_ids.size, "targets": asked.item.size}
    if exam.ranking is not None:
        rows = exam.ranking
        found[RANKING] = {
            "users": users[RANKING],
            "requests": rows.request_ids.size,
            "rows": rows.label.size,
            "positives": int(rows.label.sum()),
        }
    return found
