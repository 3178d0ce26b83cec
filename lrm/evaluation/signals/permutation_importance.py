"""What a signal is worth to a trained model: how much worse the model answers once the signal is shuffled.

The model is not trained again. The same weights answer the same questions twice, with the signal and with its values
moved to other rows (see `permutations`), and the difference is paired over users. This is the worth of a signal to a
model that leans on it, while all others stay: of two signals that say the same, each may seem to be worth little. So
signals that seem worthless are shuffled once more, together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from lrm.config import EvaluationConfig
from lrm.evaluation.estimates import Statistics, retrieval_statistics
from lrm.evaluation.held_out import HeldOut, prepare
from lrm.evaluation.metrics.bootstrap import Draws, Statistic, auc, draw_users, mean, minus
from lrm.evaluation.metrics.metrics import Floats, Ints, is_lower_better, log_loss
from lrm.evaluation.policy import RANKING, RETRIEVAL
from lrm.evaluation.predictions import Ranking, item_rows, rank_targets, user_rows
from lrm.evaluation.signals.permutations import shuffled
from lrm.features.tables import Tables
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.schema import CANDIDATE, ITEM_ID, LABEL, REQUEST_ID, USER_ID, Signal
from lrm.tokens.strata import Strata, strata

OTHERS = 3
"""Candidates that were not taken, for each that was: a rare outcome is what limits how much can be told, and any more
of the others than a few times as many cost work and tell little."""
KEPT_BYTES = 2**29
"""Bound of the decoded histories that are held, and of those where a signal in them is shuffled."""


class Trial(NamedTuple):
    """A small part of the held-out requests, encoded, with the model's own answers to it."""

    asked: Tables
    """The requests with all of their candidates."""
    held_out: HeldOut
    scorer: Scorer
    strata: Strata
    candidate_item: Ints
    """(C,) row of the catalogue, in the corpus' order of candidates."""
    draws: Draws
    base: dict[str, Statistics]
    """{task: {metric: statistic}} with every signal in its place."""
    share: float
    """Of the candidates that were not taken, how many are asked for."""
    k: int
    seed: int


def set_up(
    held_out: HeldOut, recommender: Recommender, config: EvaluationConfig, *, n_resamples: int, seed: int
) -> Trial:
    """Draw the questions and let the model answer them with every signal in its place.

    Args:
        held_out: the whole examination.
        recommender: the model.
        config: `importance_tokens` says how long the prompts of all questions together may be.
        n_resamples: draws of the users.
        seed: of the sample, of the draws of users, and of the shuffles.
    """
    rng = np.random.default_rng(seed)
    task = held_out.ranking if held_out.ranking is not None else held_out.retrieval
    assert task is not None, "held-out data have a task"
    mixed = spread(task.request_ids, user_rows(held_out.tables), rng)
    share = _share_of_others(held_out)
    lengths = _prompt_tokens(held_out, recommender, share)[mixed]
    n_chosen = np.searchsorted(np.cumsum(lengths), config.importance_tokens, side="right")
    asked = only(held_out.tables, np.sort(mixed[: max(1, n_chosen)]))
    share = share if asked.candidates.filter(pl.col(LABEL) > 0).height else 1.0
    tables = with_fewer_others(asked, share=share, rng=rng)
    small = prepare(tables, held_out.signals, config, seed=seed)
    scorer = Scorer(recommender, tables)
    scorer.keep_histories(most_bytes=KEPT_BYTES)
    draws = draw_users(tables.requests[USER_ID].n_unique(), n_resamples, rng)
    groups = strata(scorer.corpus, recommender.vocabulary)
    candidate_item = item_rows(tables, tables.candidates[ITEM_ID])[scorer.corpus.candidate_order_C]
    trial = Trial(asked, small, scorer, groups, candidate_item, draws, {}, share, config.k, seed)
    return trial._replace(base=_answers(trial, scorer, tasks=tuple(small.n_users())))


def spread(request_ids: Ints, user_of_request: Ints, rng: np.random.Generator) -> Ints:
    """The requests in an order that serves every user in turn: one request of each, then a second of each."""
    mixed = rng.permutation(request_ids)
    turn = pl.DataFrame({"user": user_of_request[mixed]}).select(pl.int_range(pl.len()).over("user")).to_series()
    ordered: Ints = mixed[np.argsort(turn.to_numpy(), kind="stable")]
    return ordered


def only(tables: Tables, request_ids: Ints) -> Tables:
    """The tables of some requests (ascending) and their users, the requests numbered anew from 0."""
    new = pl.DataFrame({REQUEST_ID: request_ids}).with_row_index("_new").cast(pl.Int64)
    requests, candidates, targets = (
        table.join(new, on=REQUEST_ID, how="inner", maintain_order="left")
        .with_columns(pl.col("_new").alias(REQUEST_ID))
        .drop("_new")
        for table in (tables.requests, tables.candidates, tables.targets)
    )
    events = tables.events.filter(pl.col(USER_ID).is_in(requests[USER_ID].unique().implode()))
    return tables._replace(events=events, requests=requests, candidates=candidates, targets=targets)


def with_fewer_others(tables: Tables, *, share: float, rng: np.random.Generator) -> Tables:
    """The tables with all candidates that were taken, and a share of the others."""
    stays = (pl.col(LABEL) > 0) | pl.Series(rng.random(tables.candidates.height) < share)
    return tables._replace(candidates=tables.candidates.filter(stays))


def importance(trial: Trial, signals: Sequence[Signal]) -> dict[str, Statistics]:
    """What some signals are worth together: {task: {metric: by how much it gets worse without them}}.

    Positive says that the signals help, whether or not a smaller value of the metric is the better one. The task of
    retrieval is left out where only the candidate maker reads the signals: no candidate token is there.
    """
    corpus = trial.scorer.corpus
    for signal in signals:
        at = trial.held_out.signals.index(signal)
        rng = np.random.default_rng((trial.seed, at))
        groups, item = trial.strata, trial.candidate_item
        corpus = shuffled(corpus, signal, trial.held_out.signals, groups, candidate_item=item, rng=rng)
    reaches = any(set(signal.makers) != {CANDIDATE} for signal in signals)
    tasks = [task for task in trial.base if task == RANKING or reaches]
    scorer = trial.scorer.over(corpus)
    scorer.keep_histories(most_bytes=KEPT_BYTES)
    without = _answers(trial, scorer, tasks=tasks)
    return {
        task: {metric: _loss(metric, trial.base[task][metric], changed) for metric, changed in without[task].items()}
        for task in tasks
    }


def _share_of_others(held_out: HeldOut) -> float:
    """The share of the candidates not taken that makes `OTHERS` of each that was; 1 where they are no more."""
    n_taken = int(held_out.ranking.label.sum()) if held_out.ranking is not None else 0
    n_others = held_out.ranking.label.size - n_taken if held_out.ranking is not None else 0
    return min(1.0, OTHERS * n_taken / n_others) if n_taken and n_others else 1.0


def _prompt_tokens(held_out: HeldOut, recommender: Recommender, share: float) -> Floats:
    """(R,) mean prompt length of each request of the table, with a share of the candidates that were not taken."""
    shape = recommender.prompt_shape()
    n_events = np.minimum(held_out.seen.stop - held_out.seen.start, shape.max_history)
    request, taken = (held_out.tables.candidates[column].to_numpy() for column in (REQUEST_ID, LABEL))
    n_candidates = np.bincount(request, weights=np.where(taken > 0, 1.0, share), minlength=len(n_events))
    lengths: Floats = n_events * shape.per_event + shape.per_query + n_candidates * shape.per_candidate
    return lengths


def _answers(trial: Trial, scorer: Scorer, *, tasks: Sequence[str]) -> dict[str, Statistics]:
    held_out, found = trial.held_out, {}
    if held_out.ranking is not None and RANKING in tasks:
        found[RANKING] = _ranking(trial, held_out.ranking, scorer.candidate_logits(held_out.ranking.request_ids))
    if held_out.retrieval is not None and RETRIEVAL in tasks:
        ranks = rank_targets(
            scorer, held_out.retrieval, held_out.seen, tables=held_out.tables, name="ledger", is_shown=False
        )
        found[RETRIEVAL] = retrieval_statistics(trial.draws, held_out.retrieval, ranks, k=trial.k, masked=False)
    return found


def _ranking(trial: Trial, task: Ranking, logits: Floats) -> Statistics:
    """Each candidate that was not taken stands for those that are not asked for; the area does not change by that."""
    weights = np.where(task.label > 0, 1.0, 1.0 / trial.share)
    return {
        "auc": auc(trial.draws, task.user, logits, task.label),
        "log_loss": mean(trial.draws, task.user, log_loss(logits, task.label), weights),
    }


def _loss(metric: str, base: Statistic, without: Statistic) -> Statistic:
    return minus(without, base) if is_lower_better(metric) else minus(base, without)
