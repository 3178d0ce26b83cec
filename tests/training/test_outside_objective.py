"""An objective and a preset of another package: the model is trained, scored, saved, loaded and served."""

import json

import numpy as np
import pytest

from lrm.content_digest import WEIGHTS
from lrm.errors import ConfigError
from lrm.features.run import retrieve_features
from lrm.features.tables import read
from lrm.model import artifact
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.training.run import pretrain_token_factory
from tests.outside_package import installed, served, train
from tests.serving.conftest import ask
from tests.serving.shop import write_shop

TOY = '''
"""Keep the states of requests short: an objective that needs neither targets nor items."""

from dataclasses import replace

from lrm.presets import Preset, preset


def loss(states, context):
    return states.request_RD.pow(2).mean() if len(context.batch.requests) else states.request_RD.sum()


def make():
    tiny = preset("tiny")
    return replace(tiny, training=replace(tiny.training, objectives={"next_item": 1.0, "short_states": 5.0}))


MINE = Preset(make=make, purpose="to show how", time="seconds")
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The name of a preset of another package, installed on the path of this process and its children."""
    parts = {"lrm.training.objectives": "short_states = their_objective", "lrm.presets": "toy = their_objective:MINE"}
    with installed(tmp_path / "package", monkeypatch, modules={"their_objective": TOY}, parts=parts):
        yield "toy"


def test_it_is_trained_scored_saved_loaded_and_served(toy, tmp_path):
    shop = train(tmp_path, toy)
    curves = json.loads((tmp_path / "model/curves.json").read_text())
    assert {name for name in curves if name.endswith("_loss") and name.startswith("train/")} == {
        "train/next_item_loss",
        "train/short_states_loss",
    }
    assert curves["train/short_states_loss"][-1][1] < curves["train/short_states_loss"][0][1]
    recommender = artifact.load(tmp_path / "model")
    assert recommender.config == preset(toy)
    assert np.isfinite(Scorer(recommender, read(shop.examples)).item_scores(np.arange(8))).all()
    with served(shop) as address:
        assert len(ask(address, "/v1/recommend", user_id=3)[1]["items"]) > 0


def test_an_objective_that_is_not_installed_is_refused_before_anything_is_trained(toy, tmp_path, monkeypatch):
    data, repo = write_shop(tmp_path)
    retrieve_features(data, repo, tmp_path / "examples")
    (tmp_path / "package/their_package-1.0.dist-info/entry_points.txt").write_text(
        "[lrm.presets]\ntoy = their_objective:MINE\n"
    )
    with pytest.raises(ConfigError, match=r"lrm.training.objectives has no part called 'short_states'"):
        pretrain_token_factory(tmp_path / "examples", tmp_path / "factory", preset=toy)
    assert not (tmp_path / "factory" / WEIGHTS).exists()
