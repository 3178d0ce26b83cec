import numpy as np
import polars as pl
import pytest
import torch

from lrm.evaluation.signals.linear_probe import Rows, linear, members, raw, recovered
from lrm.evaluation.signals.target_leakage import alone_auc
from lrm.evaluation.signals.token_probes import probe_tokens, states, tokens, two_sides
from lrm.features.tables import read
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.schema import BAG, CANDIDATE, DENSE, EMBEDDING, HISTORY, QUERY, SPARSE, USER_ID
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from tests.evaluation.planted import train
from tests.worlds import SIGNALS

RNG = np.random.default_rng(0)
INPUTS = Rows(RNG.normal(size=(400, 6)).astype(np.float32), RNG.normal(size=(300, 6)).astype(np.float32))


def of_inputs(function):
    return Rows(*(function(part).astype(np.float32) for part in INPUTS))


@pytest.fixture(scope="module")
def world(examples, tmp_path_factory):
    """A trained model, its corpus, and what its tokens keep."""
    recommender = train(examples, tmp_path_factory.mktemp("retention"))
    corpus = encode_corpus(read(examples), SIGNALS, recommender.vocabulary)
    return recommender, corpus, probe_tokens(recommender, corpus, n_requests=400, n_rows=1000, seed=0)


def test_a_signal_planted_in_the_inputs_is_read_back_and_an_absent_one_is_not():
    number = of_inputs(lambda part: part[:, :1] - 2 * part[:, 1:2])
    choice = of_inputs(lambda part: (part[:, :1] > 0) * 5)
    bag = of_inputs(lambda part: np.where(part[:, :3] > 0, [4, 5, 6], 0))
    assert recovered(INPUTS, number, DENSE) > 0.99
    assert recovered(INPUTS, choice, SPARSE) > 0.7
    assert recovered(INPUTS, bag, BAG) > 0.7
    assert recovered(INPUTS, of_inputs(lambda part: part[:, :2]), EMBEDDING) > 0.99
    absent = Rows(*(RNG.normal(size=(len(part), 1)).astype(np.float32) for part in INPUTS))
    assert abs(recovered(INPUTS, absent, DENSE)) < 0.1
    assert recovered(INPUTS, Rows(*(np.sign(part) for part in absent)), SPARSE) < 0.05


def test_a_probe_is_not_asked_for_what_does_not_vary():
    constant = of_inputs(lambda part: np.ones((len(part), 1)))
    missing = of_inputs(lambda part: np.full((len(part), 1), np.nan))
    assert np.isnan(recovered(INPUTS, constant, DENSE))
    assert np.isnan(recovered(INPUTS, constant, SPARSE))
    assert np.isnan(recovered(INPUTS, missing, DENSE))
    nothing = Rows(np.zeros((0, 1), dtype=np.float32), np.zeros((0, 1), dtype=np.float32))
    assert np.isnan(recovered(Rows(INPUTS.fit[:0], INPUTS.score[:0]), nothing, BAG))


def test_a_ridge_regression_predicts_close_to_a_linear_truth():
    wanted = INPUTS.fit @ np.arange(6.0)
    predicted = linear(INPUTS, (wanted - wanted.mean())[:, None])[:, 0] + wanted.mean()
    assert np.corrcoef(predicted, INPUTS.score @ np.arange(6.0))[0, 1] > 0.999


def test_categories_are_the_frequent_ones_of_the_fitting_rows_and_one_for_the_rest():
    rows = Rows(np.array([[2.0], [2.0], [3.0]]), np.array([[2.0], [9.0]]))
    assert members(rows, SPARSE).score.tolist() == [[1, 0, 0], [0, 0, 1]]
    bags = Rows(np.array([[2.0, 3.0], [2.0, 0.0]]), np.array([[0.0, 0.0], [3.0, 0.0]]))
    assert members(bags, BAG).score.tolist() == [[0, 0], [0, 1]]
    numbers = Rows(np.array([[1.5], [np.nan]]), np.array([[np.nan]]))
    assert raw(numbers, DENSE).fit.tolist() == [[1.5, 0], [0, 1]]


def test_a_bag_that_no_fitting_row_fills_is_not_asked_for_and_orders_nothing(tables):
    empty = Rows(np.zeros((400, 3), dtype=np.int32), np.array([[4, 5, 0]] * 300, dtype=np.int32))
    assert members(empty, BAG).score.shape == (300, 0)
    assert np.isnan(recovered(INPUTS, empty, BAG))
    never = pl.lit(None, dtype=pl.List(pl.String)).alias("tags")
    held = [getattr(tables, name).with_columns(never) for name in ("events", "candidates", "items")]
    tables = tables._replace(events=held[0], candidates=held[1], items=held[2])
    corpus = encode_corpus(tables, SIGNALS, fit_vocabulary(tables, SIGNALS, preset("tiny").tokens))
    sides = two_sides(corpus, max_history=32, n_requests=100, n_rows=500, rng=np.random.default_rng(0))
    assert alone_auc(corpus, SIGNALS, sides)["tags"] == 0.5


def test_every_signal_is_probed_in_every_maker_that_reads_it_between_floor_and_ceiling(world):
    found = world[2]
    assert {(each.signal.name, each.maker) for each in found} == {
        (signal.name, maker) for signal in SIGNALS for maker in signal.makers
    }
    for each in found:
        assert each.ceiling >= max(each.floor, each.prompt, each.after) - 0.1, each
    affinity = next(each for each in found if each.signal.name == "affinity")
    assert affinity.prompt > affinity.floor + 0.2
    assert affinity.prompt > 0.8


def test_the_prompt_alone_gives_the_same_numbers_and_leaves_the_rest_out(world):
    recommender, corpus, found = world
    short = probe_tokens(recommender, corpus, n_requests=400, n_rows=1000, seed=0, only_prompt=True)
    assert [each.prompt for each in short] == [each.prompt for each in found]
    assert all(np.isnan(each.floor) and np.isnan(each.after) for each in short)


def test_the_two_sides_share_no_user_and_no_day(world, tables):
    _, corpus, _ = world
    fit, score = two_sides(corpus, max_history=32, n_requests=100, n_rows=500, rng=np.random.default_rng(0))
    users, times = (tables.requests[name].to_numpy() for name in (USER_ID, "event_time"))
    assert not set(users[fit.requests]) & set(users[score.requests])
    assert times[fit.requests].max() < times[score.requests].min()
    event_times = tables.events["event_time"].to_numpy()
    assert event_times[fit.rows[HISTORY]].max() < event_times[score.rows[HISTORY]].min()
    assert max(len(rows) for side in (fit, score) for rows in side.rows.values()) <= 500


def test_tokens_and_states_are_those_of_the_model(world, tables):
    recommender, corpus, _ = world
    side, _ = two_sides(corpus, max_history=32, n_requests=40, n_rows=300, rng=np.random.default_rng(0))
    made, after = tokens(recommender.factory, corpus, side), states(recommender, corpus, side)
    width = recommender.config.model.d_model
    assert made[QUERY].shape == after[QUERY].shape == (40, 2 * width)
    logits = recommender.outcome(torch.from_numpy(after[CANDIDATE])).squeeze(-1).detach().numpy()
    assert np.allclose(logits, Scorer(recommender, tables).candidate_logits(side.requests), atol=1e-5)
    event = side.rows[HISTORY][:1]
    alone = recommender.factory.history_tokens(
        torch.from_numpy(corpus.event_identity_E[event]), corpus.history_E.take(event)
    )
    assert np.allclose(made[HISTORY][:1], alone.detach().numpy(), atol=1e-6)
