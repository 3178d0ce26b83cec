import json

import pytest

from lrm import manifest
from lrm.errors import DataError

ARGUMENTS = {"model_name": "shop", "data": "/data/shop", "data_version": "d1", "as_of": "", "preset": "tiny", "seed": 3}
CODE = {"sha256": "c1", "commit": "abc", "dirty": False}


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "20260101T000000-0001"
    folder.mkdir()
    return folder


def begin(run_dir):
    arguments = ARGUMENTS | {"feature_repo": "/data/shop/feature_repo"}
    manifest.begin(run_dir, arguments=arguments, configuration={"name": "tiny"}, declarations_sha256="f1", code=CODE)


def keep(run_dir, name, content):
    path = run_dir / "steps" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def keep_all(run_dir):
    snapshot = {"snapshot_id": "s1", "as_of": "2026-01-01T00:00:00+00:00", "service": "shop", "service_version": "v1"}
    keep(run_dir, "retrieve_features/manifest.json", snapshot | {"data": {"name": "shop", "sha256": "d1"}})
    keep(run_dir, "find_champion/champion.json", {"version": "4", "bundle": "/b", "content_sha256": "p1"})
    judged = {"challenger": {"ranking": {"auc": {"value": 0.75, "low": 0.7, "high": 0.8}}}, "champion": {}}
    about = {"challenger": {"weights_sha256": "w1"}}
    content = {"verdict": "keep", "models": judged, "about": about, "settings": {"seed": 3}}
    keep(run_dir, "evaluate_model/evaluation.json", content)
    keep(run_dir, "train_lrm/config.json", {"name": "tiny"})
    keep(run_dir, "register_model/record.json", {"metrics": {"version": "5"}})


def test_before_the_first_step_it_names_data_definitions_code_packages_and_seed(run_dir, monkeypatch):
    monkeypatch.setenv("LRM_IMAGE", "registry.example/token-factory@sha256:1")
    begin(run_dir)
    facts = manifest.read(run_dir)
    assert (facts["run_id"], facts["state"], facts["outcome"]) == (run_dir.name, "started", None)
    assert (facts["data"]["sha256"], facts["features"]["declarations_sha256"]) == ("d1", "f1")
    assert (facts["code"], facts["seed"], facts["configuration"]) == (CODE, 3, {"name": "tiny"})
    assert facts["environment"]["image"] == "registry.example/token-factory@sha256:1"
    assert facts["environment"]["packages"]["torch"].startswith("2.")


def test_the_end_adds_the_snapshot_the_parent_and_the_outcome(run_dir):
    begin(run_dir)
    keep_all(run_dir)
    manifest.complete(run_dir, state="succeeded")
    facts = manifest.read(run_dir)
    assert (facts["state"], facts["data"]["snapshot_id"], facts["features"]["service_version"]) == (
        "succeeded",
        "s1",
        "v1",
    )
    assert facts["parent"] == {"version": "4", "content_sha256": "p1"}
    assert facts["outcome"] == {
        "verdict": "keep",
        "weights_sha256": "w1",
        "metrics": {"ranking.auc": 0.75},
        "version": "5",
    }
    assert facts["code"] == CODE


def test_a_run_that_failed_early_says_so_and_keeps_what_it_knew(run_dir):
    begin(run_dir)
    manifest.complete(run_dir, state="failed")
    facts = manifest.read(run_dir)
    assert (facts["state"], facts["outcome"], facts["data"]["sha256"]) == ("failed", None, "d1")


def test_where_no_command_line_came_before_the_exit_step_writes_all_of_it(run_dir):
    keep_all(run_dir)
    manifest.complete(run_dir, state="succeeded")
    facts = manifest.read(run_dir)
    assert (facts["data"]["name"], facts["preset"], facts["seed"]) == ("shop", "tiny", 3)
    assert facts["outcome"]["metrics"] == {"ranking.auc": 0.75}


def test_nothing_half_written_is_ever_seen(run_dir):
    begin(run_dir)
    assert [path.name for path in run_dir.iterdir()] == ["run_manifest.json"]


def test_a_manifest_that_is_missing_or_torn_is_named(run_dir):
    with pytest.raises(DataError, match=r"run_manifest.json is missing: .* is no run"):
        manifest.read(run_dir)
    (run_dir / "run_manifest.json").write_text('{"run_id": ')
    with pytest.raises(DataError, match="is not JSON"):
        manifest.read(run_dir)
