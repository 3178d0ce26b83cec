"""An objective and a preset of another package: the model is trained, scored, saved, loaded and served."""

import json
import os
import sys

import numpy as np
import pytest

from lrm.errors import ConfigError
from lrm.features.run import retrieve_features
from lrm.features.tables import read
from lrm.model import artifact
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.registry.run import promote_model
from lrm.serving.run import roll_out
from lrm.serving.staging.process import running
from lrm.training.run import pretrain_token_factory, train_lrm
from tests.serving.conftest import NAME, ask, register
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
    package = tmp_path / "package"
    facts = package / "their_objective-1.0.dist-info"
    facts.mkdir(parents=True)
    (package / "their_objective.py").write_text(TOY)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-objective\nVersion: 1.0\n")
    groups = {"lrm.training.objectives": "short_states = their_objective", "lrm.presets": "toy = their_objective:MINE"}
    (facts / "entry_points.txt").write_text("".join(f"[{group}]\n{line}\n" for group, line in groups.items()))
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=os.pathsep)
    yield "toy"
    sys.modules.pop("their_objective", None)


def test_it_is_trained_scored_saved_loaded_and_served(toy, tmp_path):
    data, repo = write_shop(tmp_path)
    examples, state = tmp_path / "examples", tmp_path / "state"
    registry = f"sqlite:///{state}/mlflow.db"
    retrieve_features(data, repo, examples)
    pretrain_token_factory(examples, tmp_path / "factory", preset=toy)
    train_lrm(examples, tmp_path / "factory", tmp_path / "model")
    curves = json.loads((tmp_path / "model/curves.json").read_text())
    assert {name for name in curves if name.endswith("_loss") and name.startswith("train/")} == {
        "train/next_item_loss",
        "train/short_states_loss",
    }
    assert curves["train/short_states_loss"][-1][1] < curves["train/short_states_loss"][0][1]
    recommender = artifact.load(tmp_path / "model")
    assert recommender.config == preset(toy)
    assert np.isfinite(Scorer(recommender, read(examples)).item_scores(np.arange(8))).all()
    version = register(tmp_path, registry, "toy")
    promote_model(tmp_path / "promoted", registry=registry, name=NAME, version=version, run_id="run-toy")
    told = {"registry": registry, "name": NAME, "data": data, "feature_repo": repo, "state": state}
    assert roll_out(examples, tmp_path / "rolled_out", **told)["max_score_difference"] < 1e-4
    with running((state / "serving" / NAME / "current").resolve(), log=tmp_path / "log") as address:
        assert len(ask(address, "/v1/recommend", user_id=3)[1]["items"]) > 0


def test_an_objective_that_is_not_installed_is_refused_before_anything_is_trained(toy, tmp_path, monkeypatch):
    data, repo = write_shop(tmp_path)
    retrieve_features(data, repo, tmp_path / "examples")
    (tmp_path / "package/their_objective-1.0.dist-info/entry_points.txt").write_text(
        "[lrm.presets]\ntoy = their_objective:MINE\n"
    )
    with pytest.raises(ConfigError, match=r"lrm.training.objectives has no part called 'short_states'"):
        pretrain_token_factory(tmp_path / "examples", tmp_path / "factory", preset=toy)
    assert not (tmp_path / "factory/model.safetensors").exists()
