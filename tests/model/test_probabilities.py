"""What follows a request is one distribution over the catalogue, also of who has no history: every path to a score."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lrm.model.cuda_graphs import CudaGraphs, Size
from lrm.model.heads import Wanted
from lrm.model.kv_cache import Suffix, decode_over, prefill
from lrm.model.onnx_runtime import export
from lrm.model.scoring import Catalogue, Scorer
from lrm.tokens.corpus import encode_corpus
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import scoring_segments
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.objectives import retrieval
from tests.model.test_kv_cache import SHAPES, recommender_of

OPEN = 3.0
"""Log-odds of the gate, whatever the state: without history a twentieth of the probability would be left."""
REQUESTS = np.arange(40)
HISTORIES = {"none": 0, "one event": 1, "all": 100}


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def model(request, world):
    recommender = recommender_of(*world, request.param)
    if recommender.head.copy_head is not None:
        recommender.head.copy_head.gate.weight.data.zero_()
        recommender.head.copy_head.gate.bias.data.fill_(OPEN)
    return recommender


def shortened(tables, n_events):
    """The tables with the first events alone of every user."""
    return tables._replace(events=tables.events.filter(pl.int_range(pl.len()).over("user_id") < n_events))


def unlisted(recommender, tables):
    """The catalogue without the items that three in four events are of."""
    counts = tables.events["item_id"].value_counts(sort=True)["item_id"].to_list()
    rows = np.flatnonzero(~np.isin(tables.items["item_id"].to_numpy(), counts[: len(counts) * 3 // 4]))
    corpus = encode_corpus(tables, recommender.signals, recommender.vocabulary)
    prepared = recommender.head.prepare(recommender.factory, corpus)
    return Catalogue(corpus.item_ids[rows], prepared._replace(item_VW=prepared.item_VW[rows]))


def totals(scores):
    return np.exp(scores.astype(np.float64)).sum(1)


@pytest.mark.parametrize("n_events", HISTORIES.values(), ids=HISTORIES)
def test_the_probabilities_of_all_items_sum_to_one(model, world, n_events):
    scorer = Scorer(model, shortened(world[0], n_events))
    assert totals(scorer.item_scores(REQUESTS)) == pytest.approx(1, abs=1e-5)
    scorer.keep_histories(most_bytes=2**30)
    assert totals(scorer.item_scores(REQUESTS)) == pytest.approx(1, abs=1e-5)


def test_they_do_where_the_catalogue_lacks_some_or_all_items_of_a_history(model, world):
    tables, _ = world
    catalogue = unlisted(model, tables)
    scorer = Scorer(model, tables, catalogue=catalogue)
    is_known = tables.events["item_id"].is_in(catalogue.item_ids.tolist())
    assert 0 < is_known.sum() < len(is_known)
    assert totals(scorer.item_scores(REQUESTS)) == pytest.approx(1, abs=1e-5)
    unknown = Scorer(model, tables._replace(events=tables.events.filter(~is_known)), catalogue=catalogue)
    assert totals(unknown.item_scores(REQUESTS)) == pytest.approx(1, abs=1e-5)


WAYS = {
    "torch": lambda recommender, shape: None,
    "onnx": lambda recommender, shape: export(recommender.decoder, per_candidate=shape.per_candidate),
    "captured": lambda recommender, shape: CudaGraphs(recommender.decoder, [Size(64, 64, shape.per_query)], shape),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("n_events", HISTORIES.values(), ids=HISTORIES)
def test_the_scores_that_a_server_gives_for_a_whole_catalogue_sum_to_one(model, world, n_events, way):
    corpus = encode_corpus(shortened(world[0], n_events), model.signals, model.vocabulary)
    nothing, shape = np.zeros(0, dtype=np.int64), model.prompt_shape()
    prefixes = prefill(model, corpus, REQUESTS)
    queries, no_items, time_R = corpus.query_R.take(REQUESTS), torch.zeros(0).long(), corpus.request_time_R[REQUESTS]
    asked = Suffix(queries, corpus.candidate_C.take(nothing), no_items, 0 * REQUESTS, time_R)
    states, _ = decode_over(model, prefixes, asked, way(model, shape))
    exact = model.head.prepare(model.factory, corpus)
    rows, n_items = [prefix.row_T for prefix in prefixes], len(corpus.item_ids)
    indexed = model.head.open_index(exact, model.head.plan_index(exact, [states]), effort=1000)
    for catalogue in (exact, indexed):
        found = model.head.best(states, rows, dict.fromkeys(range(40), Wanted(n_items)), catalogue)
        assert totals(np.stack([found[r].scores for r in range(40)])) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", [{}], indirect=True, ids=["as it is"])
def test_training_does_not_take_the_gate_for_a_request_that_sees_nothing(model, world):
    def loss(corpus, requests):
        model.zero_grad()
        batch = build_batch(corpus, scoring_segments(corpus, requests, max_history=64), model.prompt_shape())
        losses = Losses(model, TrainingData(corpus, model))
        mean = retrieval.loss(model(batch), losses.context(batch, np.random.default_rng(0)))
        mean.backward()
        return mean.item(), abs(model.head.copy_head.gate.bias.grad.item())

    whole = encode_corpus(world[0], model.signals, model.vocabulary)
    asking = np.flatnonzero(np.diff(whole.target_offset_R))[:5]
    nobody = replace(whole, visible_R=np.zeros_like(whole.visible_R))
    (seen, moved), (unseen, unmoved) = loss(whole, asking), loss(nobody, asking)
    assert moved > 0
    assert unmoved == 0
    model.head.copy_head.gate.bias.data.fill_(-OPEN)
    assert loss(whole, asking)[0] != pytest.approx(seen, abs=0.1)
    assert loss(nobody, asking)[0] == pytest.approx(unseen, abs=1e-6)
    model.head.copy_head.gate.bias.data.fill_(OPEN)
