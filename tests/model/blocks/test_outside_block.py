"""A block of another package is trained, scored, saved, loaded and served like one of the project."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from lrm.errors import ConfigError
from lrm.features.tables import read
from lrm.model import artifact
from lrm.model.decoder import Decoder
from lrm.model.scoring import Scorer
from lrm.presets import PRESETS, preset
from tests.outside_package import installed, served, train
from tests.serving.conftest import ask

TOY = '''
"""Tokens read the mean of the history tokens that they see; a layer keeps one tensor and offers nothing."""

import torch
from torch import nn

from lrm.tokens.visibility import rule


class Block(nn.Module):
    def __init__(self, config, *, strength: float = 1.0):
        super().__init__()
        self.mix, self.strength = nn.Linear(config.d_model, config.d_model), strength

    def prepare(self, layout, n_tokens):
        rows = torch.arange(len(layout.position_N))
        sees_NN = rule(layout, n_all=len(rows))(rows.unsqueeze(1), rows)
        sees_NH = sees_NN[len(rows) - n_tokens :, : len(layout.history_slot_H)].float()
        return sees_NH / sees_NH.sum(1, keepdim=True).clamp(min=1.0)

    def forward(self, x_ND, layout, share_NH, past=None):
        history_HD = x_ND[: len(layout.history_slot_H)] if past is None else past[0]
        return x_ND + self.strength * torch.tanh(self.mix(share_NH @ history_HD)), (history_HD,)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The name of a preset whose block is another package's, installed on the path of this process and its children."""
    tiny = preset("tiny")
    model = replace(tiny.model, block="mean", block_options={"strength": 0.5}, n_layers=2)
    monkeypatch.setitem(PRESETS, "toy", lambda: replace(tiny, model=model))
    parts = {"lrm.model.blocks": "mean = their_blocks"}
    with installed(tmp_path / "package", monkeypatch, modules={"their_blocks": TOY}, parts=parts):
        yield "toy"


def test_it_is_trained_scored_saved_loaded_and_served(toy, tmp_path):
    shop = train(tmp_path, toy)
    losses = json.loads((tmp_path / "model/curves.json").read_text())["train/next_item_loss"]
    assert losses[-1][1] < losses[0][1]
    recommender = artifact.load(tmp_path / "model")
    scorer, requests = Scorer(recommender, read(shop.examples)), np.arange(8)
    whole = scorer.item_scores(requests)
    scorer.keep_histories(most_bytes=2**20)
    assert scorer.item_scores(requests) == pytest.approx(whole, abs=1e-5)
    with served(shop) as address:
        decoder = ask(address, "/v1/model")[1]["decoder"]
        answer = ask(address, "/v1/recommend", user_id=3)[1]
    assert (decoder["runtime"], decoder["reason"]) == ("torch", "the block 'mean' has no form for ONNX Runtime")
    assert len(answer["items"]) > 0


def test_where_its_package_is_not_installed_the_model_is_refused_in_words(toy, tmp_path, monkeypatch):
    config = preset(toy)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tmp_path / "package")])
    with pytest.raises(ConfigError, match=r"lrm.model.blocks has no part called 'mean'"):
        Decoder(config.model, n_positions=9)
