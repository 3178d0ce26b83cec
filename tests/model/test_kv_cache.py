"""A history decoded once serves every later request and candidate, with the scores of one pass over all."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lrm.config import ModelConfig, TokensConfig
from lrm.features.tables import read, read_declared
from lrm.model.heads import Wanted
from lrm.model.kv_cache import Suffix, decode_over, prefill
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from tests.worlds import write_examples

SHAPES = {
    "as it is": {},
    "without a copy head": {"model": {"head_options": {"copy_head": False}}},
    "without query tokens": {"tokens": {"n_query_tokens": 0}},
    "several tokens each": {"tokens": {"n_event_tokens": 2, "n_candidate_tokens": 3}},
    "a short history over memory": {
        "model": {"max_history": 4},
        "tokens": {"memory": "attention", "memory_events": 6, "memory_tokens": 2},
    },
    "requests that candidates meet in attention alone": {"tokens": {"query_in_candidates": False}},
    "shared keys": {"model": {"n_heads": 4, "n_kv_heads": 2}},
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=8, n_items=12, n_events=14)
    whole = read(folder)
    is_last = pl.int_range(1, pl.len() + 1).over("user_id") == pl.len().over("user_id")
    return whole._replace(events=whole.events.filter(~is_last)), read_declared(folder)  # so some request sees them all


def recommender_of(tables, signals, changed):
    config = preset("tiny")
    tokens: TokensConfig = replace(config.tokens, **changed.get("tokens", {}))
    model: ModelConfig = replace(config.model, **changed.get("model", {}))
    torch.manual_seed(0)
    made = Recommender(
        replace(config, tokens=tokens, model=model), signals, fit_vocabulary(tables, signals, tokens)
    ).eval()
    for weight in made.parameters():  # blocks begin as the identity; these must not
        weight.data += 0.1 * torch.randn(weight.shape)
    return made


@pytest.mark.parametrize("changed", SHAPES.values(), ids=SHAPES)
def test_scores_over_a_kept_history_are_those_of_one_pass(tables, changed):
    tables, signals = tables
    recommender = recommender_of(tables, signals, changed)
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    n_events = np.diff(corpus.user_offset_U)
    last = np.flatnonzero(corpus.visible_R == n_events[corpus.user_R])
    assert len(last) > 3
    prefixes = prefill(recommender, corpus)
    candidates = [np.arange(*corpus.candidate_offset_R[r : r + 2]) for r in last]
    flat = np.concatenate(candidates)
    suffix = Suffix(
        corpus.query_R.take(last),
        corpus.candidate_C.take(flat),
        torch.from_numpy(corpus.candidate_identity_C[flat]),
        np.array([len(one) for one in candidates]),
        corpus.request_time_R[last],
    )
    mine = [prefixes[corpus.user_R[r]] for r in last]
    states, _ = decode_over(recommender, mine, suffix)
    scorer = Scorer(recommender, tables)
    logits = scorer.candidate_logits(last)
    order = np.argsort(corpus.candidate_order_C[flat])
    assert states.candidate_logit_C.numpy()[order] == pytest.approx(logits, abs=1e-5)
    scores = scorer.item_scores(last)
    catalogue = recommender.head.prepare(recommender.factory, corpus)
    wanted = dict.fromkeys(range(len(last)), Wanted(5))
    best = recommender.head.best(states, [p.row_T for p in mine], wanted, catalogue)
    for one, expected in zip(best.values(), scores, strict=True):
        assert one.scores == pytest.approx(np.sort(expected)[::-1][:5], abs=1e-5)
        assert one.scores == pytest.approx(expected[one.rows], abs=1e-5)


def test_a_choice_is_kept_and_what_is_left_out_stays_out(tables):
    tables, signals = tables
    recommender = recommender_of(tables, signals, {})
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    (prefix, *_) = prefill(recommender, corpus)
    empty = np.zeros(0, dtype=np.int64)
    query, time_R = corpus.query_R.take(np.array([0])), corpus.request_time_R[:1]
    suffix = Suffix(query, corpus.candidate_C.take(empty), torch.zeros(0).long(), np.array([0]), time_R)
    states, _ = decode_over(recommender, [prefix], suffix)

    def rows(**wanted):
        catalogue = recommender.head.prepare(recommender.factory, corpus)
        return recommender.head.best(states, [prefix.row_T], {0: Wanted(12, **wanted)}, catalogue)[0].rows.tolist()

    assert sorted(rows()) == list(range(12))
    assert sorted(rows(only=np.array([3, 5, 7]), without=np.array([5]))) == [3, 7]
    assert sorted(rows(without=np.array([0, 11]))) == list(range(1, 11))


def test_equal_scores_come_in_the_order_of_the_catalogue(tables):
    tables, signals = tables
    recommender = recommender_of(tables, signals, {})
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    prefix = prefill(recommender, corpus)[0]
    nobody = prefix._replace(
        kept_LH=tuple(kept[:, :0] for kept in prefix.kept_LH),
        event_TD=prefix.event_TD[:0],
        row_T=prefix.row_T[:0],
        time_T=prefix.time_T[:0],
    )
    empty = np.zeros(0, dtype=np.int64)
    query, none = corpus.query_R.take(np.array([0])), corpus.candidate_C.take(empty)
    suffix = Suffix(query, none, torch.zeros(0).long(), np.array([0]), corpus.request_time_R[:1])
    states, _ = decode_over(recommender, [nobody], suffix)
    catalogue = recommender.head.prepare(recommender.factory, corpus)
    alike = catalogue._replace(item_VW=torch.zeros_like(catalogue.item_VW))
    best = recommender.head.best(states, [nobody.row_T], {0: Wanted(3)}, alike)[0]
    assert best.rows.tolist() == [0, 1, 2]
