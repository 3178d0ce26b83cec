"""A version goes into service only if it serves what it scores offline."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from lrm.errors import RegistryError, SchemaError, ServingError
from lrm.features.tables import read
from lrm.model.artifact import load
from lrm.serving.__main__ import champion_folder, main
from lrm.serving.process import running
from lrm.serving.publish import declared_for
from lrm.serving.release import read_release
from lrm.serving.replay import choose_probes, compare, offline_tables
from lrm.serving.run import roll_out
from tests.serving.conftest import NAME, register
from tests.serving.shop import AS_OF, FEATURE_REPO


def test_served_scores_are_the_offline_scores(world):
    assert (world.metrics["n_users"], world.metrics["n_probes"]) == (16, 32)
    assert world.metrics["max_score_difference"] <= 1e-5
    assert world.metrics["max_probability_difference"] <= 1e-5
    kept = json.loads((world.root / "rolled_out" / "roll_out.json").read_text())
    assert kept["version"] == "1"
    assert kept["latency_p99_ms"] >= kept["latency_p50_ms"] > 0


def test_current_names_the_version_in_service(world):
    current = world.releases / "current"
    assert current.is_symlink()
    release = read_release(current.resolve())
    assert (release.name, release.version, release.as_of) == (NAME, "1", AS_OF)
    assert release.key_types == {"user_id": "int64", "item_id": "int64", "store_id": "int64"}


def test_a_signal_that_differs_between_online_and_offline_is_skew(world, address):
    recommender = load(world.release.folder / "bundle")
    declared = declared_for(recommender.signals, world.feature_repo, world.data)
    examples = read(world.examples)
    probes = choose_probes(examples, world.data, declared, world.release, n=2)
    tables = offline_tables(probes, examples, examples.items, declared, world.release)
    assert compare(address, probes, recommender, tables, world.release).score_difference <= 1e-5
    older = tables._replace(requests=tables.requests.with_columns(pl.col("age") + 30))
    with pytest.raises(ServingError, match=r"training-serving skew: user \d+, item \d+"):
        compare(address, probes, recommender, older, world.release)


def test_a_late_correction_and_an_expired_value_are_seen_by_neither_side(world):
    recommender = load(world.release.folder / "bundle")
    declared = declared_for(recommender.signals, world.feature_repo, world.data)
    examples = read(world.examples)
    (probe,) = choose_probes(examples, world.data, declared, world.release, n=1)
    probe = probe._replace(candidates=[{"item_id": item} for item in (100, 101)])
    offered = offline_tables([probe], examples, examples.items, declared, world.release).candidates
    expired, corrected = offered["popularity"]
    assert expired is None
    assert corrected < 1000.0


def test_a_model_whose_signal_is_gone_is_not_rolled_out_and_current_stays(world, tmp_path):
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    (repo / "definitions.py").write_text(FEATURE_REPO.replace('"shelf"', '"rack"'))
    with pytest.raises(ServingError, match=r"the model reads shelf, which .* no longer declares"):
        roll_out(world.examples, tmp_path / "out", **world.asked(feature_repo=repo))
    assert sorted(path.name for path in world.releases.iterdir() if path.is_dir()) == ["1", "current"]


def test_signals_declared_after_training_are_left_alone(world, tmp_path):
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    more = 'tags=dense("query", "request")),\n    Field(name="weather", dtype=Float32, tags=dense("query", "request")),'
    (repo / "definitions.py").write_text(FEATURE_REPO.replace('tags=dense("query", "request")),', more, 1))
    signals = load(world.release.folder / "bundle").signals
    assert {signal.name for signal in declared_for(signals, repo, world.data).signals} == {s.name for s in signals}


def test_a_roll_out_that_fails_half_way_leaves_nothing_behind(world, tmp_path):
    version = register(world.root, world.registry, "2")
    data = shutil.copytree(world.data, tmp_path / "data")
    pl.read_parquet(data / "requests.parquet").drop("device").write_parquet(data / "requests.parquet")
    with pytest.raises(SchemaError, match="column 'device' is missing"):
        roll_out(world.examples, tmp_path / "out", **world.asked(data=data, version=version))
    assert sorted(path.name for path in world.releases.iterdir() if path.is_dir()) == ["1", "current"]


def test_without_a_champion_there_is_nothing_to_roll_out(world, tmp_path):
    assert roll_out(world.examples, tmp_path / "out", **world.asked(name="another"))["version"] == ""


def test_a_tampered_release_is_not_served(world, tmp_path):
    folder = shutil.copytree(world.release.folder, tmp_path / "release")
    (folder / "bundle" / "weights.pt").write_bytes(b"evil")
    with pytest.raises(RegistryError, match=r"weights\.pt was changed"):
        read_release(folder)
    with (
        pytest.raises(ServingError, match=r"ended with status 1 before it was ready: .*weights\.pt was changed"),
        running(folder, log=tmp_path / "server.log"),
    ):
        pass


def test_the_registry_names_the_folder_to_serve(world):
    assert champion_folder(world.registry, NAME, world.state) == world.releases / "1"
    with pytest.raises(ServingError, match=r"no release in .* run `make run`"):
        champion_folder(world.registry, NAME, world.root)
    register(world.root, world.registry, "1", name="fresh")
    with pytest.raises(ServingError, match="nothing was promoted yet: fresh has no champion"):
        champion_folder(world.registry, "fresh", world.state)


def test_the_command_line_says_what_is_missing(tmp_path, capsys):
    assert main(["--bundle", str(tmp_path)]) == 1
    assert "is no release" in capsys.readouterr().err
    assert main(["--registry", f"sqlite:///{tmp_path}/mlflow.db"]) == 1
    assert "there is no registry at" in capsys.readouterr().err


def test_a_registered_version_is_a_python_function_that_takes_its_own_example(world):
    from lrm.registry import backend

    store = backend.connect(world.registry, NAME)
    folder = str(backend.local_path(backend.version(store, "1").source))
    function = backend.mlflow.pyfunc.load_model(folder)
    (answer,) = function.predict(function.metadata.load_input_example(folder))
    assert len(answer["items"]) == 10
    assert np.all(np.diff(answer["scores"]) <= 0)
    assert len(answer["probabilities"]) == 2
