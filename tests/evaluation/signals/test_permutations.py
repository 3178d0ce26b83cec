from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lrm.evaluation.held_out import prepare
from lrm.evaluation.predictions import item_rows
from lrm.evaluation.signals.permutation_importance import _answers, importance, only, set_up, spread
from lrm.evaluation.signals.permutations import columns, shuffled
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.schema import CANDIDATE, HISTORY, QUERY
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.strata import strata
from tests.worlds import SIGNALS, renamed


@pytest.fixture(scope="module")
def world(tables):
    """Tables, an untrained recommender, the corpus, and where values may move in it."""
    config = preset("tiny")
    recommender = Recommender(config, SIGNALS, fit_vocabulary(tables, SIGNALS, config.tokens))
    corpus = encode_corpus(tables, SIGNALS, recommender.vocabulary)
    item = item_rows(tables, tables.candidates["item_id"])[corpus.candidate_order_C]
    places = {"strata": strata(corpus, recommender.vocabulary), "candidate_item": item}
    return tables, recommender, corpus, places


def named(name):
    return next(signal for signal in SIGNALS if signal.name == name)


def differing(before, after):
    """Names of the signals whose values differ in some maker's table, by maker."""
    found = {}
    for maker, old in columns(before, SIGNALS).items():
        new = columns(after, SIGNALS)[maker]
        fields = zip(old.arrays[:3], new.arrays[:3], strict=True)
        lists = [(a, b) for i in (3, 4) for a, b in zip(old.arrays[i], new.arrays[i], strict=True)]
        found[maker] = sum(not np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in [*fields, *lists])
    return found


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("affinity", {HISTORY: 0, QUERY: 0, CANDIDATE: 2}),  # a number is a bucket and a value
        ("spent", {HISTORY: 2, QUERY: 0, CANDIDATE: 0}),
        ("country", {HISTORY: 0, QUERY: 1, CANDIDATE: 0}),
        ("tags", {HISTORY: 1, QUERY: 0, CANDIDATE: 1}),
        ("vector", {HISTORY: 1, QUERY: 0, CANDIDATE: 1}),
    ],
)
def test_only_the_shuffled_signal_changes_and_its_values_stay_the_same_set(world, name, changed):
    _, _, corpus, places = world
    after = shuffled(corpus, named(name), SIGNALS, **places, rng=np.random.default_rng(0))
    assert differing(corpus, after) == changed
    if name == "affinity":
        before_values, after_values = (np.sort(each.candidate_C.value_NF, axis=0) for each in (corpus, after))
        assert np.array_equal(before_values, after_values)


def test_content_moves_from_item_to_item_alike_in_history_candidates_and_catalogue(world):
    _, _, corpus, places = world
    after = shuffled(corpus, named("colour"), SIGNALS, **places, rng=np.random.default_rng(0))
    colour = [signal.name for signal in SIGNALS if signal.kind == "sparse" and signal.name != "country"].index("colour")
    of_item = after.content_V.sparse_NS[:, colour]
    assert not np.array_equal(of_item, corpus.content_V.sparse_NS[:, colour])
    assert np.array_equal(after.history_E.sparse_NS[:, colour], of_item[corpus.event_row_E])
    assert np.array_equal(after.candidate_C.sparse_NS[:, colour], of_item[places["candidate_item"]])
    assert np.array_equal(after.event_identity_E, corpus.event_identity_E)


def test_requests_are_spread_over_users_before_a_user_is_asked_twice():
    user = np.array([0, 0, 0, 1, 1, 2])
    order = spread(np.arange(6), user, np.random.default_rng(0))
    assert sorted(order) == list(range(6))
    assert set(user[order[:3]]) == {0, 1, 2}
    assert set(user[order[3:5]]) == {0, 1}


def test_a_sample_of_requests_keeps_a_signal_that_is_called_new(tables):
    chosen = np.array([3, 8, 21])
    sample = only(renamed(tables, hour="new")[0], chosen).requests
    assert sample["request_id"].to_list() == [0, 1, 2]
    assert sample["new"].to_list() == tables.requests["hour"].gather(chosen).to_list()


def test_a_sample_of_requests_is_scored_as_it_is_among_all(world):
    tables, recommender, _, _ = world
    chosen = np.array([5, 40, 301, 302, 700])
    whole, part = (
        Scorer(recommender, tables),
        Scorer(recommender, only(tables, chosen)),
    )
    renumbered = np.arange(len(chosen))
    assert np.allclose(part.candidate_logits(renumbered), whole.candidate_logits(chosen), atol=1e-5)
    assert np.allclose(part.item_scores(renumbered), whole.item_scores(chosen), atol=1e-5)


def test_where_few_candidates_are_taken_all_of_them_are_asked_for_and_three_times_as_many_others(world):
    tables, recommender, _, _ = world
    rare = pl.Series(np.random.default_rng(0).random(tables.candidates.height) < 0.05).cast(pl.Float32)
    tables = tables._replace(candidates=tables.candidates.with_columns(label=rare))
    config = replace(preset("tiny").evaluation, importance_tokens=10**9)
    held_out = prepare(tables, SIGNALS, config, seed=0)
    trial = set_up(held_out, recommender, config, n_resamples=100, seed=0)
    asked = trial.held_out.ranking.label
    assert asked.sum() == held_out.ranking.label.sum()
    assert (asked.size - asked.sum()) / asked.sum() == pytest.approx(3, rel=0.15)
    assert trial.asked.candidates.height == held_out.ranking.label.size
    kept = (asked.size - asked.sum()) / (held_out.ranking.label.size - held_out.ranking.label.sum())
    assert trial.share == pytest.approx(kept, rel=0.15)


def test_log_losses_are_those_of_all_candidates_where_others_are_left_out(world):
    tables, recommender, _, _ = world
    is_taken = np.random.default_rng(0).random(tables.candidates.height) < 0.05
    tables = tables._replace(candidates=tables.candidates.with_columns(label=pl.Series(is_taken).cast(pl.Float32)))
    config = replace(preset("tiny").evaluation, importance_tokens=10**9)
    trial = set_up(prepare(tables, SIGNALS, config, seed=0), recommender, config, n_resamples=100, seed=0)

    class Rate:
        """Says of every candidate what is true of them on average."""

        def candidate_logits(self, request_ids):
            return np.full(trial.held_out.ranking.label.size, np.log(is_taken.mean() / (1 - is_taken.mean())))

    found = _answers(trial, Rate(), tasks=["ranking"])["ranking"]
    mean = is_taken.mean()
    of_all = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    assert found["log_loss"].value == pytest.approx(of_all, rel=0.1)
    assert found["log_loss"].draws.mean() == pytest.approx(of_all, rel=0.1)
    assert found["auc"].value == 0.5


def test_a_sample_without_a_taken_candidate_keeps_the_others(world):
    tables, recommender, _, _ = world
    label = pl.Series(np.arange(tables.candidates.height) == tables.candidates.height - 1).cast(pl.Float32)
    tables = tables._replace(candidates=tables.candidates.with_columns(label=label), targets=tables.targets.clear())
    config = replace(preset("tiny").evaluation, importance_tokens=1)
    trial = set_up(prepare(tables, SIGNALS, config, seed=0), recommender, config, n_resamples=100, seed=0)
    assert (trial.share, trial.held_out.ranking.label.size) == (1.0, trial.asked.candidates.height)


def test_a_signal_of_candidates_alone_is_weighed_over_the_histories_that_are_kept(world):
    tables, recommender, _, _ = world
    config = replace(preset("tiny").evaluation, importance_tokens=20_000)
    held_out = prepare(tables, SIGNALS, config, seed=0)
    trial = set_up(held_out, recommender, config, n_resamples=100, seed=0)
    assert set(trial.scorer._kept) == set(trial.held_out.tables.requests["request_id"])
    kept = importance(trial, [named("affinity")])
    whole = importance(trial._replace(scorer=Scorer(recommender, trial.held_out.tables)), [named("affinity")])
    assert kept["ranking"]["auc"].value == pytest.approx(whole["ranking"]["auc"].value, abs=1e-4)
