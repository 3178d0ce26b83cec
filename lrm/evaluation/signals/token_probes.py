"""How much of each signal its soft tokens keep: probes on frozen tokens, between a floor and a ceiling.

A probe is fitted on tokens of some users in the training window and scored on tokens of other users after it, so that
what it reads was neither learned of these users nor on these days. The ceiling is the signal's own encoding through
the same probe (what the probe could read at best: rare categories and change over time cost it too); the floor is a
factory of the same shape with fresh random weights, since a random projection also keeps much.

Axes: N rows, X numbers of a row's tokens together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.evaluation.metrics.metrics import Floats, Ints
from lrm.evaluation.signals.linear_probe import Rows, encoded, raw, recovered
from lrm.evaluation.signals.permutations import columns
from lrm.model.recommender import Recommender
from lrm.schema import CANDIDATE, HISTORY, QUERY, SPLITS, TEST, TRAIN, Signal
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import TokenFactory
from lrm.tokens.prompt import request_batches

BATCH_TOKENS = 16_384


class Side(NamedTuple):
    """What a probe is fitted on, or what it is scored on."""

    requests: Ints
    """Prompts whose tokens are read."""
    rows: dict[str, Ints]
    """{maker: rows of its table in the corpus, ascending}, all of them inside those prompts."""


class TokenProbe(NamedTuple):
    """What one maker's tokens keep of one signal; NaN where it was not asked, or where the signal does not vary."""

    signal: Signal
    maker: str
    floor: float
    prompt: float
    """Of the tokens as the decoder reads them."""
    after: float
    """Of their states after the last block."""
    ceiling: float
    n_fit: int
    n_score: int


def probe_tokens(
    recommender: Recommender, corpus: Corpus, *, n_requests: int, n_rows: int, seed: int, only_prompt: bool = False
) -> list[TokenProbe]:
    """Probe every declared signal in the tokens of every maker that reads it.

    Args:
        recommender: the model; nothing of it is changed.
        corpus: the tables of an examples folder, encoded by it.
        n_requests: prompts on each side at most.
        n_rows: tokens of a maker on each side at most.
        seed: of the halves of users, of the samples, and of the random factory.
        only_prompt: leave `floor` and `after` out, which saves most of the time.
    """
    rng = np.random.default_rng(seed)
    max_history = recommender.prompt_shape().max_history
    sides = two_sides(corpus, max_history=max_history, n_requests=n_requests, n_rows=n_rows, rng=rng)
    levels = {"prompt": [tokens(recommender.factory, corpus, side) for side in sides]}
    if not only_prompt:
        levels["after"] = [states(recommender, corpus, side) for side in sides]
        random = fresh(recommender, seed=seed)
        levels["floor"] = [tokens(random, corpus, side) for side in sides]
    found = []
    for maker, column in columns(corpus, recommender.signals).items():
        fit, score = (side.rows[maker] for side in sides)
        for signal in column.signals:
            if signal not in recommender.signals:
                continue
            values = encoded(column.arrays, column.signals, signal)
            truth = Rows(values[fit], values[score])
            kept = {
                level: recovered(Rows(*(side[maker] for side in both)), truth, signal.kind)
                for level, both in levels.items()
            }
            ceiling = recovered(raw(truth, signal.kind), truth, signal.kind)
            nothing = {"floor": float("nan"), "after": float("nan")}
            found.append(
                TokenProbe(signal, maker, ceiling=ceiling, n_fit=len(fit), n_score=len(score), **nothing | kept)
            )
    return found


def two_sides(
    corpus: Corpus, *, max_history: int, n_requests: int, n_rows: int, rng: np.random.Generator
) -> tuple[Side, Side]:
    """Training requests of one half of the users, to fit on, and test requests of the other half, to score on.

    Events are those of the training window on the one side, and later ones on the other.
    """
    n_users = len(corpus.user_offset_U) - 1
    is_first_half = rng.permutation(n_users) < n_users // 2

    def side(split: str, of_half: np.ndarray, of_events: np.ndarray) -> Side:
        is_asked = (corpus.split_R == SPLITS.index(split)) & of_half[corpus.user_R]
        requests = _drawn(np.flatnonzero(is_asked), n_requests, rng)
        n_candidates = np.diff(corpus.candidate_offset_R)
        is_chosen = np.zeros(corpus.n_requests, dtype=bool)
        is_chosen[requests] = True
        rows = {
            HISTORY: np.flatnonzero(_read(corpus, requests, max_history) & of_events),
            QUERY: requests,
            CANDIDATE: np.flatnonzero(np.repeat(is_chosen, n_candidates)),
        }
        return Side(requests, {maker: _drawn(each, n_rows, rng) for maker, each in rows.items()})

    is_train = corpus.event_is_train_E
    return side(TRAIN, is_first_half, is_train), side(TEST, ~is_first_half, ~is_train)


@torch.inference_mode()
def tokens(factory: TokenFactory, corpus: Corpus, side: Side) -> dict[str, Floats]:
    """{maker: (N, X)} the tokens of a side's rows, as the factory makes them."""
    event, request, candidate = (side.rows[maker] for maker in (HISTORY, QUERY, CANDIDATE))
    made = {
        HISTORY: factory.history_tokens(torch.as_tensor(corpus.event_identity_E[event]), corpus.history_E.take(event)),
        QUERY: factory.query_tokens(corpus.query_R.take(request)),
        CANDIDATE: factory.candidate_tokens(
            torch.as_tensor(corpus.candidate_identity_C[candidate]),
            corpus.candidate_C.take(candidate),
            factory.context_of_candidates(corpus, candidate),
        ),
    }
    return {maker: _flat(each, len(side.rows[maker])) for maker, each in made.items()}


@torch.inference_mode()
def states(recommender: Recommender, corpus: Corpus, side: Side) -> dict[str, Floats]:
    """{maker: (N, X)} the states of the same tokens after the last block."""
    found: dict[str, Floats] = {}
    for batch in request_batches(corpus, side.requests, recommender.prompt_shape(), batch_tokens=BATCH_TOKENS):
        after = recommender.decode(recommender.tokens(batch), batch)
        rows = {HISTORY: batch.events, QUERY: batch.requests, CANDIDATE: batch.candidates}
        for (maker, at), state in zip(rows.items(), after[1:], strict=True):
            flat, wanted = _flat(state, len(at)), side.rows[maker]
            held = found.setdefault(maker, np.zeros((len(wanted), flat.shape[1]), dtype=np.float32))
            is_wanted = np.isin(at, wanted)
            held[np.searchsorted(wanted, at[is_wanted])] = flat[is_wanted]
    return found


def fresh(recommender: Recommender, *, seed: int) -> TokenFactory:
    """A factory of the same shape with random weights; the generator of the caller stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Recommender(recommender.config, recommender.signals, recommender.vocabulary).factory.eval()


def _read(corpus: Corpus, requests: Ints, max_history: int) -> np.ndarray:
    """(E,) whether some of these prompts hold the event."""
    end = corpus.user_start_R[requests] + corpus.visible_R[requests]
    start = np.maximum(corpus.user_start_R[requests], end - max_history)
    steps = np.zeros(len(corpus.event_row_E) + 1, dtype=np.int64)
    np.add.at(steps, start, 1)
    np.add.at(steps, end, -1)
    return np.cumsum(steps)[:-1] > 0


def _drawn(rows: Ints, n: int, rng: np.random.Generator) -> Ints:
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def _flat(made: Tensor, n_rows: int) -> Floats:
    """(N, X) with all tokens of a row side by side."""
    return made.reshape(n_rows, -1).cpu().numpy() if n_rows else np.zeros((0, made.shape[-1]), dtype=np.float32)
