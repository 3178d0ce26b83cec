"""A mixture of logits scores, ranks and finds items as any head that scores the whole catalogue."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm.errors import ConfigError
from lrm.features.tables import read, read_declared
from lrm.model import artifact
from lrm.model.heads import Wanted
from lrm.model.heads.mixture_of_logits import MixtureOfLogits
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer, without_candidates
from lrm.presets import preset
from lrm.tokens.corpus import fit_vocabulary
from lrm.training import loop
from tests.worlds import write_examples

REQUESTS = np.arange(30)
OPTIONS = {"n_query": 2, "n_item": 2, "width": 8, "hidden": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=40)
    return read(folder), read_declared(folder)


@pytest.fixture(scope="module", params=[0, 5000], ids=["sampled", "against all items"])
def trained(request, world):
    tables, signals = world
    config = preset("tiny")
    model = replace(config.model, head="mixture_of_logits", head_options=OPTIONS)
    training = replace(config.training, max_steps=60, patience=60, n_negatives=16, full_softmax_items=request.param)
    config = replace(config, model=model, training=training)
    torch.manual_seed(0)
    recommender = Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens))
    corpus = without_candidates(recommender.encode(tables))
    return recommender.eval(), loop.fit(recommender, corpus, seed=0, checkpoints=None)


def test_it_learns(trained):
    losses = [loss for _, loss in trained[1].curves["train/next_item_loss"]]
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


def test_the_probabilities_of_all_items_sum_to_one_and_the_best_are_the_highest(trained, world):
    scorer = Scorer(trained[0].eval(), world[0])
    scores = scorer.item_scores(REQUESTS)
    assert np.exp(scores.astype(np.float64)).sum(1) == pytest.approx(1, abs=1e-5)
    for read_batch in scorer._run(REQUESTS, with_candidates=False):
        wanted = dict.fromkeys(range(len(read_batch.requests)), Wanted(5, without=np.array([0, 1])))
        with torch.inference_mode():
            best = trained[0].head.best(read_batch.states, read_batch.histories(), wanted, scorer._catalogue())
        for r, request in enumerate(read_batch.requests):
            allowed = scores[request].copy()
            allowed[:2] = -np.inf
            assert best[r].scores == pytest.approx(np.sort(allowed)[::-1][:5], abs=1e-5)


def test_a_model_that_was_saved_answers_the_same(trained, world, tmp_path):
    artifact.save(trained[0], tmp_path)
    again, first = (Scorer(model, world[0]).item_scores(REQUESTS) for model in (artifact.load(tmp_path), trained[0]))
    assert np.array_equal(again, first)


def test_one_pair_is_a_cosine_over_the_temperature():
    mixture = MixtureOfLogits(
        d_model=4, n_query=1, n_item=1, width=3, hidden=5, temperature=0.5, gate_dropout=0.0, balance=0.0
    )
    state, item = torch.randn(2, 4), torch.randn(3, 4)
    query_vectors, item_vectors = mixture.query(state), mixture.item(item)
    cosine = torch.nn.functional.cosine_similarity(query_vectors.unsqueeze(1), item_vectors.unsqueeze(0), dim=-1)
    assert torch.allclose(mixture.all_pairs(mixture.queries(state), mixture.rows(item)), cosine / 0.5, atol=1e-5)


def test_the_balance_is_lost_where_every_prediction_uses_the_same_pair():
    def penalty(gates):
        mixture = MixtureOfLogits(
            d_model=2, n_query=1, n_item=2, width=2, hidden=2, temperature=1.0, gate_dropout=0.0, balance=1.0
        ).eval()
        for weight in mixture.logit_gate.parameters():
            weight.data.zero_()
        query = torch.cat([torch.ones(2, 2), torch.tensor(gates)], dim=1)
        item = torch.cat([torch.ones(2, 4), torch.ones(2, 2)], dim=1)
        return mixture.penalty(query, item).item()

    assert penalty([[30.0, 0.0], [30.0, 0.0]]) == pytest.approx(0.0, abs=1e-3)
    assert penalty([[30.0, 0.0], [0.0, 30.0]]) == pytest.approx(-np.log(2), abs=1e-3)


def test_an_option_that_makes_no_sense_is_refused(world):
    config = preset("tiny")
    wrong = replace(config, model=replace(config.model, head="mixture_of_logits", head_options={"temperature": 0.0}))
    with pytest.raises(ConfigError, match="temperature of mixture_of_logits must be positive"):
        Recommender(wrong, world[1], fit_vocabulary(*world, config.tokens))
