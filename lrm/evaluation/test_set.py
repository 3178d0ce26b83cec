"""The examination: one set of questions, the answers of every model to it, and what they amount to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lrm.config import EvaluationConfig
from lrm.errors import DataError
from lrm.evaluation.baselines.simple import EaseMarkov, OwnHistory, Popular
from lrm.evaluation.baselines.trees import Trees
from lrm.evaluation.estimates import (
    CHALLENGER,
    CHAMPION,
    POPULAR,
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
from lrm.evaluation.gate.gate_inputs import Evidence, Facts, Finding
from lrm.evaluation.metrics.bootstrap import Draws, draw_users, interval, users_of_rarer
from lrm.evaluation.metrics.metrics import Floats, Ints, calibration, probability
from lrm.evaluation.policy import RANKING, RETRIEVAL, Policy
from lrm.evaluation.predictions import (
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
from lrm.evaluation.slices import Mask, head_items, slices
from lrm.features.tables import Tables
from lrm.model.scoring import Scorer
from lrm.progress import progress
from lrm.schema import CANDIDATE, EVENT_TIME, QUERY, SPLIT, TEST, TRAIN, USER_ID, Signal, for_maker, in_use

EASE_MARKOV, OWN_HISTORY, TREES = "ease_markov", "own_history", "trees"


class Exam(NamedTuple):
    """What every model is asked."""

    tables: Tables
    signals: tuple[Signal, ...]
    """What a new model reads."""
    retired: tuple[Signal, ...]
    """What only a champion may read."""
    seen: Histories
    retrieval: Retrieval | None
    ranking: Ranking | None
    head: Mask
    """(V,) the items that hold half of the training events."""
    k: int
    """Length of the list that a user sees."""

    def n_users(self) -> dict[str, int]:
        """Test users of each task that there is; of ranking, those with the rarer outcome."""
        found: dict[str, int] = {}
        if self.retrieval is not None:
            found[RETRIEVAL] = int(np.unique(self.retrieval.user).size)
        if self.ranking is not None:
            found[RANKING] = users_of_rarer(self.ranking.user, self.ranking.label)
        return found

    def judged_at(self) -> Ints:
        """(R,) the instants of the test requests, in microseconds."""
        asked = self.tables.requests.filter(pl.col(SPLIT) == TEST)[EVENT_TIME]
        return asked.dt.timestamp("us").to_numpy()


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
    seen = histories(tables)
    kept = in_use(signals)
    gone = tuple(signal for signal in signals if signal.retired)
    return Exam(tables, kept, gone, seen, retrieval, ranking, head_items(tables, seen), config.k)


def ask(exam: Exam, name: str, *, retriever: Retriever | Scorer | None, ranker: Ranker | None) -> Answers:
    """Let a model answer whatever it can answer and the exam asks."""
    started = time.perf_counter()
    ranks = logits = None
    faults = []
    if exam.retrieval is not None and retriever is not None:
        ranks = rank_targets(retriever, exam.retrieval, exam.seen, tables=exam.tables, name=name, n_top=exam.k)
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
    is_described = any(for_maker(exam.signals, maker) for maker in (QUERY, CANDIDATE))
    if is_described and train is not None and 0 < train.label.mean() < 1:
        found[TREES] = lambda: (None, Trees(exam.tables, exam.signals, n_trees=config.n_trees, seed=seed))
    return found


def mark(
    exam: Exam,
    answers: Mapping[str, Answers],
    policy: Policy,
    *,
    seed: int,
    masked: bool,
    facts: Facts = Facts(),  # noqa: B008 - a tuple
) -> dict[str, Any]:
    """Turn answers into numbers with intervals, comparisons, slices, a calibration curve and a verdict.

    Args:
        exam: what was asked.
        answers: of `challenger`, perhaps of `champion`, and of the baselines.
        policy: intervals and the gate.
        seed: of the draws of users.
        masked: report retrieval once more without the items that a history holds.
        facts: what is known of the two models besides their answers.

    Returns:
        The main part of `evaluation.json`.
    """
    n_users, confidence = exam.n_users(), policy.decision.confidence
    rng = np.random.default_rng(seed)
    draws = draw_users(exam.tables.requests[USER_ID].n_unique(), policy.decision.n_resamples, rng)
    statistics = _statistics(exam, answers, draws, masked=masked)
    comparisons = _compared(exam, answers, draws, statistics, confidence=confidence)
    at_look = []
    if facts.looks.n_earlier:
        sure, main = facts.looks.confidence(confidence), policy.decision.primary
        found = _compared(exam, answers, draws, _only(statistics, main), confidence=sure)
        at_look = [row._replace(confidence=sure) for row in found]
    parts, part_comparisons = _on_slices(exam, answers, draws, policy)
    evidence = Evidence(
        comparisons=comparisons + part_comparisons,
        values={
            model: {
                task: {metric: interval(value, confidence=confidence) for metric, value in models[model].items()}
                for task, models in statistics.items()
                if model in models
            }
            for model in answers
        },
        n_users=n_users,
        has_champion=CHAMPION in answers,
        k=exam.k,
        faults=tuple(filter(None, [answers[CHALLENGER].fault])),
        champion_faults=tuple(filter(None, [answers[CHAMPION].fault if CHAMPION in answers else ""])),
        facts=facts,
        at_look=tuple(at_look),
    )
    decision = decide(evidence, policy)
    return {
        "verdict": decision.verdict,
        "reasons": decision.reasons,
        "rules": [_finding_json(finding) for finding in decision.findings],
        "looks": looks_json(facts.looks, confidence),
        "primary": dict(zip(("task", "metric"), evidence.main_metrics(policy)[0], strict=True)),
        "models": {
            model: {
                task: {
                    metric: as_json(value, confidence=confidence) | {"n_requests": n_requests(exam, task, metric)}
                    for metric, value in models[model].items()
                }
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


def n_requests(exam: Exam, task: str, metric: str) -> int:
    """Test requests that a metric rests on; NDCG within candidates rests on those with a positive one alone."""
    if task == RETRIEVAL and exam.retrieval is not None:
        return exam.retrieval.request_ids.size
    assert exam.ranking is not None
    rows = exam.ranking
    return rows.request_ids.size if metric.partition("@")[0] != "ndcg" else np.unique(rows.request[rows.label > 0]).size


def _statistics(
    exam: Exam, answers: Mapping[str, Answers], draws: Draws, *, masked: bool
) -> dict[str, dict[str, Statistics]]:
    """{task: {model: {metric: statistic}}}."""
    found: dict[str, dict[str, Statistics]] = {}
    for name, answer in answers.items():
        if exam.retrieval is not None and answer.ranks is not None:
            numbers = retrieval_statistics(draws, exam.retrieval, answer.ranks, k=exam.k, masked=masked, head=exam.head)
            found.setdefault(RETRIEVAL, {})[name] = numbers
        if exam.ranking is not None and answer.logits is not None:
            found.setdefault(RANKING, {})[name] = ranking_statistics(draws, exam.ranking, answer.logits, k=exam.k)
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
    exam: Exam,
    answers: Mapping[str, Answers],
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
    logits = {name: answer.logits for name, answer in answers.items() if answer.logits is not None}
    if exam.ranking is None:
        return rows
    return [
        calibration_compared(row, draws, exam.ranking, logits, confidence=confidence) if row.metric == "ece" else row
        for row in rows
    ]


def _on_slices(
    exam: Exam, answers: Mapping[str, Answers], draws: Draws, policy: Policy
) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Rows of every model on every slice, and the challenger against the champion there."""
    ranks = {name: answer.ranks for name, answer in answers.items() if answer.ranks is not None}
    logits = {name: answer.logits for name, answer in answers.items() if answer.logits is not None}
    confidence = policy.decision.confidence
    rows: list[dict[str, Any]] = []
    comparisons: list[Comparison] = []
    for part in progress(slices(exam.tables, (*exam.signals, *exam.retired), exam.seen), what="slices", unit="slice"):
        numbers = slice_statistics(
            draws, part, retrieval=exam.retrieval, ranking=exam.ranking, ranks=ranks, logits=logits, k=exam.k
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


def _finding_json(finding: Finding) -> dict[str, Any]:
    """A rule's row; the difference that it judged and the bar it was held against where there are any."""
    told = {name: getattr(finding, name) for name in ("rule", "asked", "seen", "outcome", "verdict")}
    if finding.estimate is None:
        return told
    numbers = {name: number(value) for name, value in finding.estimate._asdict().items()}
    return told | numbers | {"bar": finding.bar}


def _comparison_json(row: Comparison) -> dict[str, Any]:
    numbers = {name: number(getattr(row, name)) for name in ("difference", "low", "high")}
    numbers["p_worse"] = float(f"{row.p_worse:.3g}")
    return {"task": row.task, "metric": row.metric, "against": row.against} | numbers | {"n_users": row.n_users}


def _calibration(exam: Exam, answers: Answers) -> list[list[float]]:
    if exam.ranking is None or answers.logits is None:
        return []
    bins = calibration(probability(answers.logits), exam.ranking.label)
    return [[round(float(p), 6), round(float(o), 6), int(n)] for p, o, n in zip(*bins, strict=True)]


def _sizes(exam: Exam) -> dict[str, dict[str, int]]:
    """How much each task asked."""
    found: dict[str, dict[str, int]] = {}
    if exam.retrieval is not None:
        asked = exam.retrieval
        found[RETRIEVAL] = {
            "users": int(np.unique(asked.user).size),
            "requests": asked.request_ids.size,
            "targets": asked.item.size,
        }
    if exam.ranking is not None:
        rows = exam.ranking
        found[RANKING] = {
            "users": int(np.unique(rows.user).size),
            "requests": rows.request_ids.size,
            "rows": rows.label.size,
            "positives": int(rows.label.sum()),
        }
    return found
