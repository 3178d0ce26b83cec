"""A head of another package, which cannot score all items, is trained, scored, saved, loaded, judged and served."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lrm.errors import ConfigError
from lrm.evaluation.run import evaluate_model
from lrm.features.run import retrieve_features
from lrm.features.tables import read
from lrm.model import artifact
from lrm.model.heads import ScoresAll, Wanted
from lrm.model.scoring import Scorer
from lrm.presets import PRESETS, preset
from lrm.training.run import pretrain_token_factory
from tests.outside_package import installed, served, train
from tests.serving.conftest import ask
from tests.serving.shop import write_shop

TOY = '''
"""Items are named by two vectors of their own, and found by the product; only the best are ever told."""

import numpy as np
import torch
from torch import nn

from lrm.model.heads import Best


def item_names(design, **options):
    return Names(design.vocabulary.n_identities, design.config.model.d_model)


class Names(nn.Module):
    def __init__(self, n_rows, d_model):
        super().__init__()
        self.first, self.second = nn.Embedding(n_rows, d_model), nn.Embedding(n_rows, d_model)

    def forward(self, identity_N):
        return self.first(identity_N) + self.second(identity_N)


class Head(nn.Module):
    reads_events = False

    def __init__(self, design, *, strength: float = 1.0):
        super().__init__()
        d_model = design.config.model.d_model
        self.mix, self.strength = nn.Linear(d_model, d_model), strength

    def read(self, request_RD, event_ED, layout):
        return ()

    def vectors(self, factory, corpus):
        rows = np.arange(len(corpus.item_ids))
        return factory.item_vectors(torch.as_tensor(corpus.item_identity_V), corpus.content_V.take(rows))

    def log_p(self, state_PD, vector_VD):
        return (self.strength * self.mix(state_PD) @ vector_VD.T).log_softmax(-1)

    def learner(self, factory, corpus):
        return Learner(self, factory, corpus)

    @torch.inference_mode()
    def prepare(self, factory, corpus):
        return self.vectors(factory, corpus)

    @torch.inference_mode()
    def best(self, states, rows, wanted, catalogue):
        found = {}
        for r, one in wanted.items():
            score_V = self.log_p(states.request_RD[r : r + 1], catalogue)[0].numpy()
            shown = np.arange(len(score_V)) if one.only is None else np.unique(one.only)
            shown = shown if one.without is None else np.setdiff1d(shown, one.without)
            order = np.argsort(-score_V[shown], kind="stable")[: one.k]
            found[r] = Best(shown[order], score_V[shown[order]])
        return found


class Learner:
    def __init__(self, head, factory, corpus):
        self.head, self.factory, self.corpus = head, factory, corpus

    def step(self, batch, targets, *, rng, generator=None):
        return Likelihood(self.head, self.head.vectors(self.factory, self.corpus))


class Likelihood:
    def __init__(self, head, vector_VD):
        self.head, self.vector_VD = head, vector_VD

    def next_item(self, states, events, row_P):
        log_p_PV = self.head.log_p(states.event_ED[torch.as_tensor(events - 1)], self.vector_VD)
        return -log_p_PV.gather(1, torch.as_tensor(row_P).unsqueeze(1)).sum() / max(1, len(events))

    def at_requests(self, states, requests, row_Q):
        log_p_QV = self.head.log_p(states.request_RD[torch.as_tensor(requests)], self.vector_VD)
        return log_p_QV.gather(1, torch.as_tensor(row_Q).unsqueeze(1)).squeeze(1)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The name of a preset whose head is another package's, installed on the path of this process and its children."""
    tiny = preset("tiny")
    model = replace(tiny.model, head="twice", head_options={"strength": 0.5})
    monkeypatch.setitem(PRESETS, "toy", lambda: replace(tiny, model=model))
    parts = {"lrm.model.heads": "twice = their_heads"}
    with installed(tmp_path / "package", monkeypatch, modules={"their_heads": TOY}, parts=parts):
        yield "toy"


def test_it_is_trained_scored_saved_loaded_judged_and_served(toy, tmp_path):
    shop = train(tmp_path, toy)
    judged = tmp_path / "evaluation"
    losses = json.loads((tmp_path / "model/curves.json").read_text())["train/next_item_loss"]
    assert losses[-1][1] < losses[0][1]
    recommender = artifact.load(tmp_path / "model")
    assert not isinstance(recommender.head, ScoresAll)
    (best,) = Scorer(recommender, read(shop.examples)).best_items(np.array([0]), [Wanted(5, without=np.array([2]))])
    assert len(best.rows) == 5
    assert 2 not in best.rows
    judged.mkdir()
    metrics = evaluate_model(shop.examples, tmp_path / "model", None, judged, preset=toy)
    assert 0 < metrics["retrieval_recall@10"] <= 1
    with served(shop) as address:
        answer = ask(address, "/v1/recommend", user_id=3, k=4)[1]
    assert len(answer["items"]) == 4


def test_an_option_that_it_does_not_have_is_refused(toy, tmp_path, monkeypatch):
    data, repo = write_shop(tmp_path)
    retrieve_features(data, repo, tmp_path / "examples")
    config = preset(toy)
    wrong = replace(config, model=replace(config.model, head_options={"depth": 2}))
    monkeypatch.setitem(PRESETS, "wrong", lambda: wrong)
    with pytest.raises(ConfigError, match="the item head 'twice' has no option 'depth'; it has strength"):
        pretrain_token_factory(tmp_path / "examples", tmp_path / "factory", preset="wrong")
