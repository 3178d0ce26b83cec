"""An index over a catalogue finds what the product finds, and knows what all items weigh together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm.features.tables import read, read_declared
from lrm.model.heads import Wanted
from lrm.model.heads import _index as indexing
from lrm.model.heads._copy_head import Pointed
from lrm.model.heads._index import log_total, nearest_items, open_index, plan_index
from lrm.model.heads._softmax import Catalogue
from lrm.model.recommender import Recommender
from lrm.model.states import States
from lrm.presets import preset
from lrm.tokens.corpus import fit_vocabulary
from tests.worlds import write_examples

N_ITEMS, N_KINDS, WIDTH, N_REQUESTS = 4000, 50, 16, 20


@pytest.fixture(scope="module", params=[True, False], ids=["with a copy head", "without"])
def recommender(request, tmp_path_factory):
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=4, n_items=6, n_events=8)
    tables, signals, config = read(folder), read_declared(folder), preset("tiny")
    config = replace(config, model=replace(config.model, head_options={"copy_head": request.param}))
    made = Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens))
    if made.head.seen is not None:
        made.head.seen.data.fill_(0.1)
    return made


@pytest.fixture(scope="module")
def vectors():
    """Eighty items of each of fifty kinds, near to one another."""
    rng = np.random.default_rng(0)
    kinds = 2 * rng.normal(size=(N_KINDS, WIDTH))
    return torch.as_tensor(kinds[np.arange(N_ITEMS) % N_KINDS] + 0.3 * rng.normal(size=(N_ITEMS, WIDTH))).float()


@pytest.fixture(scope="module")
def asked(vectors):
    """Requests that each fit one kind best, over histories of three items."""
    rng = np.random.default_rng(1)
    share = torch.as_tensor(rng.dirichlet(np.ones(3), N_REQUESTS)).float()
    gate = torch.as_tensor(rng.normal(size=N_REQUESTS)).float()
    requests = vectors[:N_REQUESTS] * 0.5
    states = States(requests[:0], requests, Pointed(share, gate), torch.zeros(0))
    return states, list(rng.integers(0, N_ITEMS, (N_REQUESTS, 3)))


def likely(vectors, states):
    return (states.request_RD @ vectors.T).softmax(-1).mean(0).double().numpy()


@pytest.fixture(scope="module")
def plan(vectors, asked):
    return plan_index(vectors, likely(vectors, asked[0]))


def both(recommender, vectors, asked, index, **wanted):
    """The best items by the index and by the product."""
    told = {r: Wanted(**{"k": 20} | wanted) for r in range(N_REQUESTS)}
    return [recommender.head.best(*asked, told, Catalogue(vectors, one)) for one in (index, None)]


def recall(found, exact):
    return np.mean([np.isin(exact[r].rows, found[r].rows).mean() for r in exact])


def test_few_lists_hold_the_best_items(recommender, vectors, asked, plan):
    assert len(plan.centre_CD) == 64
    found, exact = both(recommender, vectors, asked, open_index(plan, vectors, effort=4))
    assert recall(found, exact) > 0.95


def test_an_index_that_looks_everywhere_is_the_product(recommender, vectors, asked, plan):
    index = open_index(plan, vectors, effort=1000)  # more than there are
    found, exact = both(recommender, vectors, asked, index)
    for r in exact:
        assert found[r].rows.tolist() == exact[r].rows.tolist()
        assert found[r].scores == pytest.approx(exact[r].scores, abs=1e-4)  # every item is in the sample


def test_what_is_left_out_stays_out_and_others_take_its_place(recommender, vectors, asked, plan):
    index = open_index(plan, vectors, effort=64)
    for n_excluded in (10, 200, 3970):  # the last leaves thirty, fewer than any list search could promise
        rows = np.setdiff1d(np.arange(N_ITEMS), np.arange(30)) if n_excluded == 3970 else np.arange(n_excluded)
        found, exact = both(recommender, vectors, asked, index, without=rows)
        for r in exact:
            assert len(found[r].rows) == 20
            assert not np.isin(found[r].rows, rows).any()
            assert found[r].rows.tolist() == exact[r].rows.tolist()


def test_all_items_can_be_asked_for_and_few_lists_never_shorten_an_answer(recommender, vectors, asked, plan):
    index = open_index(plan, vectors, effort=1)
    for k in (1000, N_ITEMS, N_ITEMS + 1):
        found, _ = both(recommender, vectors, asked, index, k=k)
        assert {len(one.rows) for one in found.values()} == {min(k, N_ITEMS)}


def test_a_choice_of_items_has_the_scores_that_they_have_in_the_catalogue(recommender, vectors, asked, plan):
    index = open_index(plan, vectors, effort=4)
    whole, _ = both(recommender, vectors, asked, index)
    some, exact = both(recommender, vectors, asked, index, only=np.arange(0, N_ITEMS, 10), without=np.array([0]))
    for r in exact:
        assert some[r].rows.tolist() == exact[r].rows.tolist()
        _, mine, other = np.intersect1d(some[r].rows, whole[r].rows, return_indices=True)
        assert some[r].scores[mine] == pytest.approx(whole[r].scores[other], abs=1e-6)


def test_a_score_from_a_sample_is_off_by_little_and_by_the_same_for_all_items(
    recommender, vectors, asked, plan, monkeypatch
):
    monkeypatch.setattr(indexing, "N_SAMPLED", 400)
    sampled = plan_index(vectors, likely(vectors, asked[0]))
    assert 300 < len(sampled.sample_M) <= 400
    found, exact = both(recommender, vectors, asked, open_index(sampled, vectors, effort=64))
    for r in exact:
        off = found[r].scores - exact[r].scores
        assert np.abs(off).max() < 0.05
        assert found[r].rows.tolist() == exact[r].rows.tolist()


def test_the_sum_is_exact_for_items_that_are_alike(vectors, plan, monkeypatch):
    monkeypatch.setattr(indexing, "N_SAMPLED", 40)
    alike = torch.zeros_like(vectors)
    index = open_index(plan_index(alike, np.ones(N_ITEMS)), alike, effort=1)
    assert index.log_weight_M.tolist() == pytest.approx([np.log(100)] * 40, abs=1e-5)
    assert log_total(index, torch.zeros(40), np.zeros(0, dtype=np.int64), torch.zeros(0)) == pytest.approx(np.log(4000))


def test_likely_items_are_certain_to_be_in_the_sample_and_stand_for_themselves():
    chances = indexing._chances(np.array([0.8, 0.1, 0.1]), 2)
    assert chances.tolist() == [1.0, 0.5, 0.5]


def test_a_request_finds_no_more_than_its_lists_hold(vectors, plan):
    found = nearest_items(open_index(plan, vectors, effort=1), vectors[:1], 1000, n_lists=1)[0]
    held = np.bincount(plan.list_V.numpy(), minlength=64)
    assert (found >= 0).sum() in held
    assert (found[(found >= 0).sum() :] == -1).all()
