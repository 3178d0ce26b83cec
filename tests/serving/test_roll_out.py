"""A version goes into service only if it serves what it scores offline."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from lrm.errors import SchemaError, ServingError
from lrm.features.run import retrieve_features
from lrm.features.tables import read
from lrm.model.artifact import load
from lrm.registry.run import promote_model, rollback
from lrm.serving.__main__ import champion_folder, main
from lrm.serving.engine.predict import predict
from lrm.serving.engine.request_checks import RECOMMEND, PredictRequest, problem
from lrm.serving.engine.session import default_time, open_session
from lrm.serving.release import new_folder, put_in_service, read_release, write_release
from lrm.serving.releases.builder import build_release, declared_for
from lrm.serving.run import roll_out
from lrm.serving.staging.process import running
from lrm.serving.staging.replay import choose_probes, offline_tables
from tests.serving.conftest import NAME, register
from tests.serving.shop import AS_OF, FEATURE_REPO


def folders(root):
    return {path.name for path in root.iterdir() if path.is_dir()} - {"events"}  # where servers keep new events


def test_served_scores_are_the_offline_scores(world):
    assert (world.metrics["n_users"], world.metrics["n_probes"]) == (20, 40)
    assert world.metrics["max_score_difference"] <= 1e-5
    assert world.metrics["max_probability_difference"] <= 1e-5
    kept = json.loads((world.root / "rolled_out" / "roll_out.json").read_text())
    assert kept["version"] == "1"
    assert kept["latency_p99_ms"] >= kept["latency_p50_ms"] > 0
    online = sum(path.stat().st_size for path in (world.release.folder / "online").iterdir())
    assert online / 1e6 < kept["release_mb"] < online / 1e6 + 20


def test_current_names_the_version_in_service(world):
    current = world.releases / "current"
    assert current.is_symlink()
    release = read_release(current.resolve())
    assert (release.name, release.version, release.as_of) == (NAME, "1", AS_OF)
    assert release.key_types == {"user_id": "int64", "item_id": "int64", "store_id": "int64"}


def test_a_late_correction_and_an_expired_value_are_seen_by_neither_side(world):
    recommender = load(world.release.folder / "bundle")
    declared = declared_for(recommender.signals, world.feature_repo, world.data)
    examples = read(world.examples)
    (probe,) = choose_probes(examples, world.data, declared, as_of=AS_OF, n=1)
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
    assert folders(world.releases) == {"current", world.release.folder.name}


def test_signals_declared_after_training_are_left_alone(world, tmp_path):
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    more = 'tags=dense("query", "request")),\n    Field(name="weather", dtype=Float32, tags=dense("query", "request")),'
    (repo / "definitions.py").write_text(FEATURE_REPO.replace('tags=dense("query", "request")),', more, 1))
    signals = load(world.release.folder / "bundle").signals
    assert {signal.name for signal in declared_for(signals, repo, world.data).signals} == {s.name for s in signals}


def test_a_request_may_bring_what_is_declared_though_the_model_reads_it_no_more_or_not_yet(world, tmp_path):
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    hour = 'Field(name="hour", dtype=Float32, tags=dense("query", "request")),'
    weather = 'Field(name="weather", dtype=Float32, tags=retired(dense("query", "request"))),'
    more = FEATURE_REPO.replace(hour, hour + weather).replace("import bag,", "import retired, bag,")
    (repo / "definitions.py").write_text(more)
    told = {"state": tmp_path, "name": NAME, "version": "1"}
    release = build_release(world.release.folder / "bundle", world.examples, world.data, repo, **told)
    plain, both = (PredictRequest(RECOMMEND, 1, context={"hour": 5} | more) for more in ({}, {"weather": 30}))
    session = open_session(release)
    assert problem(both, session.fields, now=AS_OF) == ""
    assert problem(both, open_session(world.release).fields, now=AS_OF).startswith("context: 'weather' is not known")
    assert predict(session, [both])[0]["items"] == predict(session, [plain])[0]["items"]


def test_a_model_is_served_under_the_limits_that_are_declared_now(world, tmp_path):
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    wider = FEATURE_REPO.replace('categories=("phone", "laptop"))', 'categories=("phone", "laptop", "watch"))')
    (repo / "definitions.py").write_text(wider)
    told = {"state": tmp_path, "name": NAME, "version": "1"}
    release = build_release(world.release.folder / "bundle", world.examples, world.data, repo, **told)
    request = PredictRequest(RECOMMEND, 1, context={"device": "watch"})
    assert problem(request, open_session(release).fields, now=AS_OF) == ""
    assert problem(request, open_session(world.release).fields, now=AS_OF).startswith("context.device: 'watch' is no")


def test_a_roll_out_that_fails_half_way_leaves_nothing_behind(world, tmp_path):
    version = register(world.root, world.registry, "2")
    data = shutil.copytree(world.data, tmp_path / "data")
    pl.read_parquet(data / "requests.parquet").drop("device").write_parquet(data / "requests.parquet")
    with pytest.raises(SchemaError, match="column 'device' is missing"):
        roll_out(world.examples, tmp_path / "out", **world.asked(data=data, version=version))
    assert folders(world.releases) == {"current", world.release.folder.name}


def test_without_a_champion_there_is_nothing_to_roll_out(world, tmp_path):
    metrics = roll_out(world.examples, tmp_path / "out", **world.asked(name="another"))
    assert (metrics["version"], metrics["skipped"]) == ("", "nothing was promoted yet")


def test_a_run_of_the_past_leaves_the_release_in_service(world, tmp_path):
    past = shutil.copytree(world.examples, tmp_path / "examples")
    manifest = json.loads((past / "manifest.json").read_text())
    (past / "manifest.json").write_text(json.dumps(manifest | {"as_of": (AS_OF - timedelta(days=2)).isoformat()}))
    before = folders(world.releases), (world.releases / "current").resolve()
    metrics = roll_out(past, tmp_path / "out", **world.asked())
    assert (metrics["version"], metrics["n_probes"]) == ("", 0)
    assert "the release in service knows the world up to 2024-01-17T00:00:00+00:00, later than" in metrics["skipped"]
    assert json.loads((tmp_path / "out" / "roll_out.json").read_text()) == metrics
    assert (folders(world.releases), (world.releases / "current").resolve()) == before


def test_an_item_that_came_after_training_is_served_by_its_content(world, tmp_path):
    data = shutil.copytree(world.data, tmp_path / "data")
    items = pl.read_parquet(data / "items.parquet")
    at = pl.lit(AS_OF - timedelta(days=1)).cast(items.schema["event_time"])  # in the test window
    added = items.head(1).with_columns(
        pl.lit(200).cast(pl.Int64).alias("item_id"), pl.lit("new").alias("title"), event_time=at, created_time=at
    )
    pl.concat([items, added]).write_parquet(data / "items.parquet")
    retrieve_features(data, world.feature_repo, tmp_path / "examples")
    assert read(tmp_path / "examples").items.row(-1, named=True)["title"] is None  # as known when the test window began
    bundle = world.release.folder / "bundle"
    told = {"state": tmp_path, "name": NAME, "version": "1"}
    session = open_session(build_release(bundle, tmp_path / "examples", data, world.feature_repo, **told))
    assert session.items.item_ids.tolist() == [*range(100, 112), 200]
    assert session.items.titles[-1] == "new"


def test_whether_the_data_is_replayed_is_decided_when_the_service_opens(world):
    now = datetime.now(UTC)
    session = open_session(world.release._replace(as_of=now - timedelta(hours=1)))
    a_day_later = session._replace(release=world.release._replace(as_of=now - timedelta(days=2)))
    assert default_time(a_day_later, None) >= now
    assert default_time(a_day_later._replace(is_replay=True), None) == now - timedelta(days=2)


def test_a_tampered_release_is_not_served(world, tmp_path):
    folder = shutil.copytree(world.release.folder, tmp_path / "release")
    (folder / "bundle" / "weights.safetensors").write_bytes(b"evil")
    with pytest.raises(ServingError, match=r"weights\.safetensors was changed"):
        read_release(folder)
    with (
        pytest.raises(ServingError, match=r"status 1 before it was ready: .*weights\.safetensors was changed"),
        running(folder, log=tmp_path / "server.log"),
    ):
        pass


def test_the_registry_names_the_folder_to_serve(world):
    assert champion_folder(world.registry, NAME, world.state) == world.release.folder
    with pytest.raises(ServingError, match=r"holds no release of it \(it has version none.*run `make run`"):
        champion_folder(world.registry, NAME, world.root)
    register(world.root, world.registry, "1", name="fresh")
    with pytest.raises(ServingError, match="nothing was promoted yet: fresh has no champion"):
        champion_folder(world.registry, "fresh", world.state)


def test_where_mlflow_is_not_installed_the_release_has_to_be_named(world):
    """As in the image that serves."""
    without = "import sys; sys.modules['mlflow'] = None; from lrm.serving.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", without, "--state", world.state, "--registry", world.registry]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: no registry can be asked here, for mlflow.* name the release with --release.*\n", done.stderr
    )


def test_after_a_rollback_the_version_before_is_served(world, tmp_path):
    asked, served = {"registry": world.registry, "name": "twice"}, {}
    for number in ("1", "2"):
        register(world.root, world.registry, number, name="twice")
        promote_model(tmp_path / "promoted", **asked, version=number, run_id=f"run-{number}")
        folder = new_folder(tmp_path / "serving" / "twice", number)
        write_release(world.release._replace(folder=folder, name="twice", version=number))
        served[number] = put_in_service(world.release._replace(folder=folder, version=number))
    assert champion_folder(**asked, state=tmp_path) == served["2"]
    rollback(**asked)
    assert champion_folder(**asked, state=tmp_path) == served["1"]


def test_the_command_line_says_what_is_missing(tmp_path, capsys):
    assert main(["--release", str(tmp_path)]) == 1
    assert "is no release" in capsys.readouterr().err
    assert main(["--registry", f"sqlite:///{tmp_path}/mlflow.db"]) == 1
    assert "there is no registry at" in capsys.readouterr().err


def test_the_registry_asked_is_the_one_in_the_state_folder(tmp_path, capsys):
    assert main(["--state", str(tmp_path / "elsewhere")]) == 1
    assert f"there is no registry at {tmp_path}/elsewhere/mlflow.db" in capsys.readouterr().err


def test_a_registered_version_is_a_python_function_that_takes_its_own_example(world):
    from lrm.registry import backend

    store = backend.connect(world.registry, NAME)
    folder = str(backend.local_path(backend.version(store, "1").source))
    function = backend.mlflow.pyfunc.load_model(folder)
    (answer,) = function.predict(function.metadata.load_input_example(folder))
    assert len(answer["items"]) == 10
    assert np.all(np.diff(answer["scores"]) <= 0)
    assert len(answer["probabilities"]) == 2
