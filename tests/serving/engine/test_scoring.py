"""Scores from asks: the offline path, whoever asks."""

import numpy as np
import polars as pl
import pytest

from lrm.features.tables import read, read_declared
from lrm.model.heads import Wanted
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.serving.engine.scoring import ScoringRequest, best_items, encode_items, no_candidates, no_history, rank
from lrm.tokens.corpus import fit_vocabulary
from tests.worlds import write_examples

HAVE_ITEMS = ("events", "candidates", "targets", "items")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights score as well as any, for a comparison."""
    import torch

    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=8, n_items=12, n_events=14)
    tables, signals = read(folder), read_declared(folder)
    torch.manual_seed(0)
    return Recommender(preset("tiny"), signals, vocabulary_of(tables, signals)).eval(), tables


def vocabulary_of(tables, signals):
    return fit_vocabulary(tables, signals, preset("tiny").tokens)


def asks_of(recommender, tables, request_ids):
    """What a server would know of these requests."""
    item_type = tables.items.schema["item_id"]
    events, candidates = no_history(recommender.signals, item_type), no_candidates(recommender.signals, item_type)
    for request_id in request_ids:
        row = tables.requests.row(request_id, named=True)
        seen = tables.events.filter(user_id=row["user_id"]).select(events.columns)
        mine = tables.candidates.filter(request_id=request_id).select(candidates.columns)
        yield ScoringRequest(row["event_time"], row, seen, mine)


def scores_of_all(recommender, items, asks):
    """(R, V) the score of every item."""
    wanted = [Wanted(len(items.item_ids))] * len(asks)
    return np.stack([best.scores[np.argsort(best.rows)] for best in best_items(recommender, items, asks, wanted)])


def test_an_ask_scores_as_its_request_does_offline(model):
    recommender, tables = model
    ids = np.array([3, 40, 17])
    asks, offline = list(asks_of(recommender, tables, ids)), Scorer(recommender, tables)
    items = encode_items(recommender, tables.items)
    assert scores_of_all(recommender, items, asks) == pytest.approx(offline.item_scores(ids), abs=1e-5)
    for request_id, probabilities in zip(ids, rank(recommender, items, asks), strict=True):
        logits = offline.candidate_logits(np.array([request_id]))
        assert probabilities == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)


def test_batch_mates_change_nothing(model):
    recommender, tables = model
    items = encode_items(recommender, tables.items)
    asks = list(asks_of(recommender, tables, [3, 40, 17]))
    together = scores_of_all(recommender, items, asks)
    for ask, scores in zip(asks, together, strict=True):
        assert scores_of_all(recommender, items, [ask])[0] == pytest.approx(scores, abs=1e-5)


def test_a_user_of_whom_nothing_is_known_is_scored(model):
    recommender, tables = model
    item_type = tables.items.schema["item_id"]
    time = tables.requests["event_time"][0]
    cold = ScoringRequest(
        time, {}, no_history(recommender.signals, item_type), no_candidates(recommender.signals, item_type)
    )
    items = encode_items(recommender, tables.items)
    assert np.isfinite(scores_of_all(recommender, items, [cold])).all()
    assert [len(one) for one in rank(recommender, items, [cold])] == [0]
    assert items.titles[0] == "item 0"


def test_items_may_be_named_by_strings(model):
    _, tables = model
    names = {name: getattr(tables, name).with_columns(pl.col("item_id").cast(pl.String)) for name in HAVE_ITEMS}
    tables = tables._replace(**names)
    recommender = Recommender(model[0].config, model[0].signals, vocabulary_of(tables, model[0].signals)).eval()
    ids = np.array([3, 40])
    asks = list(asks_of(recommender, tables, ids))
    items = encode_items(recommender, tables.items)
    assert items.item_ids[:2].tolist() == ["100", "101"]
    offline = Scorer(recommender, tables).item_scores(ids)
    assert scores_of_all(recommender, items, asks) == pytest.approx(offline, abs=1e-5)
