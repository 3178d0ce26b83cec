"""A token maker of another package is trained, scored, saved, loaded and served like one of the project."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm.config import TokensConfig
from lrm.errors import ConfigError
from lrm.features.tables import read
from lrm.model import artifact
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import PRESETS, preset
from lrm.tokens.corpus import fit_vocabulary
from lrm.tokens.makers import make
from lrm.training.pretrain import makers
from lrm.training.run import pretrain_token_factory
from tests.outside_package import installed, served, train
from tests.serving.conftest import ask
from tests.tokens.test_vocabulary import FITTED
from tests.worlds import SIGNALS, write_examples

TOY = '''
"""One linear map of the dense signals for all tokens of a row; it offers nothing else."""

import torch
from torch import nn

from lrm.schema import DENSE


class Linear(nn.Module):
    def __init__(self, signals, n_tokens, d_model, scale):
        super().__init__()
        self.signals, self.n_tokens, self.scale = tuple(signals), n_tokens, scale
        n_dense = sum(signal.kind == DENSE for signal in signals)
        self.weight_FD = nn.Parameter(torch.randn(n_dense, n_tokens * d_model))

    def forward(self, signals):
        return self.scale * (signals.value_NF @ self.weight_FD).unflatten(1, (self.n_tokens, -1))


def make(signals, vocabulary, config, *, n_tokens, d_model, scale: float = 1.0):
    return Linear(signals, n_tokens, d_model, scale)
'''
SUBCLASS = """
from lrm.tokens.makers.soft import SoftMaker


class Doubled(SoftMaker):
    def embed(self, signals):
        return 2 * super().embed(signals)


def make(signals, vocabulary, config, *, n_tokens, d_model):
    return Doubled(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another package with two variants, on the path of this process and of its children."""
    modules = {"their_linear": TOY, "their_doubled": SUBCLASS}
    parts = {"lrm.tokens.makers": "linear = their_linear\ndoubled = their_doubled"}
    with installed(tmp_path / "package", monkeypatch, modules=modules, parts=parts) as folder:
        yield folder


@pytest.fixture
def toy(package, monkeypatch):
    """The name of a preset whose tokens the other package makes."""
    tiny = preset("tiny")
    tokens = replace(tiny.tokens, variant="linear", variant_options={"scale": 0.5})
    monkeypatch.setitem(PRESETS, "toy", lambda: replace(tiny, tokens=tokens))
    return "toy"


def test_it_is_trained_scored_saved_loaded_and_served(toy, tmp_path):
    shop = train(tmp_path, toy)
    losses = json.loads((tmp_path / "model/curves.json").read_text())["train/next_item_loss"]
    assert losses[-1][1] < losses[0][1]
    recommender = artifact.load(tmp_path / "model")
    assert (type(recommender.factory.query).__name__, recommender.factory.query.scale) == ("Linear", 0.5)
    tables, requests = read(shop.examples), np.arange(8)
    scores = Scorer(recommender, tables).item_scores(requests)
    artifact.save(recommender, tmp_path / "copy")
    again = Scorer(artifact.load(tmp_path / "copy"), tables).item_scores(requests)
    assert all(np.array_equal(one, other) for one, other in zip(scores, again, strict=True))
    with served(shop) as address:
        assert len(ask(address, "/v1/recommend", user_id=3)[1]["items"]) > 0


def test_a_maker_that_extends_a_pretrainable_one_is_pretrained_too(package, tmp_path, monkeypatch):
    tiny = preset("tiny")
    config = replace(tiny, tokens=replace(tiny.tokens, variant="doubled"), pretrain=replace(tiny.pretrain, steps=3))
    monkeypatch.setitem(PRESETS, "doubled", lambda: config)
    examples = write_examples(tmp_path / "world", n_users=12)
    torch.manual_seed(0)
    vocabulary = fit_vocabulary(read(examples), SIGNALS, config.tokens)
    recommender = Recommender(config, SIGNALS, vocabulary)
    assert set(makers(recommender.factory)) == {"history", "query", "candidate", "content"}
    assert recommender.factory.query_to_candidate is not None
    metrics = pretrain_token_factory(examples, tmp_path / "factory", preset="doubled")
    assert metrics["pretrain/masked_signals"] > 0


def test_a_variant_that_is_not_installed_and_an_option_that_it_does_not_have_are_refused(package, monkeypatch):
    def made(config: TokensConfig) -> object:
        return make((), FITTED, config, n_tokens=1, d_model=8)

    with pytest.raises(ConfigError, match=r"the variant 'linear' has no option 'bias'; it has .*scale"):
        made(TokensConfig(variant="linear", variant_options={"bias": True}))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(package)])
    with pytest.raises(ConfigError, match=r"lrm.tokens.makers has no part called 'linear'; it has .*soft"):
        made(TokensConfig(variant="linear"))
