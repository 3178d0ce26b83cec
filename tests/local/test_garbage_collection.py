"""What prune may take, in a planted home: a run that made a champion, one that lost, a pinned one, and the latest."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from local import garbage_collection, run_layout
from local.garbage_collection import Needed
from lrm.errors import DataError
from pipeline import main

CHAMPION, LOSER, PINNED, LAST = (
    "20260101T000000-0001",
    "20260102T000000-0002",
    "20260103T000000-0003",
    "20260104T0-0004",
)
TASK = "token-factory-x/train-lrm"


def plant_run(runs: Path, run_id: str, *, reads: tuple[Path, ...] = ()) -> Path:
    """A run that trained, whose cache entry names what it wrote."""
    folder, model = runs / run_id, runs / ".artifacts" / run_id / TASK / "model"
    (folder / "steps/train_lrm").mkdir(parents=True)
    (folder / "run_manifest.json").write_text(json.dumps({"run_id": run_id, "state": "succeeded"}))
    record = {"step": "train_lrm", "state": "succeeded", "started": "", "inputs": [str(path) for path in reads]}
    (folder / "steps/train_lrm/record.json").write_text(json.dumps(record))
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(b"0" * 1000)
    entry = runs / ".cache/packages" / f"{run_id}.json"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text(json.dumps({"model": {"__kfp_artifact__": True, "uri": str(model)}}))
    return model


@pytest.fixture
def home(tmp_path):
    runs, state = tmp_path / "runs", tmp_path / "state"
    for run_id in (CHAMPION, LOSER, PINNED):
        plant_run(runs, run_id)
    (runs / PINNED / "pinned").write_text("")
    plant_run(runs, LAST, reads=(runs / ".artifacts" / CHAMPION / TASK / "model",))
    (runs / "latest").symlink_to(LAST)
    (runs / ".checkpoints/abc").mkdir(parents=True)
    for version, place in (("1", "1-a"), ("1", "1-b"), ("2", "2-a"), ("3", "3-a")):
        release = state / "serving/shop" / place
        release.mkdir(parents=True)
        (release / "release.json").write_text(json.dumps({"version": version}))
    (state / "serving/shop/current").symlink_to("3-a")
    for model in ("m-1", "m-2", "m-3"):
        (state / "artifacts/models" / model / "artifacts").mkdir(parents=True)
    (state / "artifacts/promotions").mkdir()
    return tmp_path


def needed(home: Path) -> Needed:
    """Versions 1 and 3 were champions, the former made by the first run."""
    models = home / "state/artifacts/models"
    return Needed(
        frozenset({CHAMPION}), {"shop": frozenset({"1", "3"})}, (models / "m-1/artifacts", models / "m-3/artifacts")
    )


def may_go(home: Path) -> set[str]:
    found = garbage_collection.unneeded(home / "runs", home / "state", needed(home))
    return {str(item.path.relative_to(home)) for item in found}


def test_only_what_nobody_needs_may_go(home):
    assert may_go(home) == {
        f"runs/.cache/packages/{LOSER}.json",
        f"runs/{LOSER}",
        f"runs/.artifacts/{LOSER}",
        "runs/.checkpoints/abc",
        "state/serving/shop/1-a",
        "state/serving/shop/2-a",
        "state/artifacts/models/m-2",
    }


def test_what_a_run_that_stays_has_read_stays_though_its_own_run_goes(home):
    read = home / "runs/.artifacts" / LOSER / TASK / "model"
    record = home / f"runs/{PINNED}/steps/train_lrm/record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"inputs": [str(read)]}))
    (home / "runs/.artifacts" / LOSER / "token-factory-x/validate-data").mkdir()
    gone = may_go(home)
    assert f"runs/{LOSER}" in gone
    assert f"runs/.artifacts/{LOSER}/token-factory-x/validate-data" in gone
    assert f"runs/.artifacts/{LOSER}/{TASK}" not in gone
    assert f"runs/.cache/packages/{LOSER}.json" not in gone


def test_what_was_listed_is_removed_and_then_nothing_is_left_to_remove(home):
    listed = garbage_collection.unneeded(home / "runs", home / "state", needed(home))
    garbage_collection.remove(listed)
    assert [item.path for item in listed if item.path.exists()] == []
    assert may_go(home) == set()
    assert all(path.exists() for folders in run_layout.entries(home / "runs").values() for path in folders)


def test_nothing_is_pruned_under_a_run_that_is_going_on(home):
    with run_layout.held(home / "runs" / LAST), pytest.raises(DataError, match=f"run {LAST} is going on and may reuse"):
        may_go(home)
    assert may_go(home)


def test_the_command_lists_first_and_removes_only_when_told(home, capsys):
    folders = ["--runs", str(home / "runs"), "--state", str(home / "nothing-was-ever-registered")]
    assert main(["prune", "--pin", LOSER, *folders]) == 0
    assert main(["prune", "--unpin", PINNED, *folders]) == 0
    assert main(["prune", *folders]) == 0
    printed = capsys.readouterr().out
    assert f"{LOSER} is pinned" in printed
    assert "; --yes removes them" in printed
    assert (home / "runs" / PINNED).is_dir()
    assert main(["prune", "--yes", *folders]) == 0
    assert {path.name for path in (home / "runs").glob("[!.]*")} == {LOSER, LAST, "latest"}
    assert main(["prune", "--yes", *folders]) == 0
    assert "removed 0 things" in capsys.readouterr().out


def test_nothing_is_pruned_where_the_registry_that_knows_what_is_needed_is_missing(home, capsys):
    assert main(["prune", "--yes", "--runs", str(home / "runs"), "--state", str(home / "state")]) == 1
    assert "there is no registry at" in capsys.readouterr().err
    assert (home / "runs" / LOSER).is_dir()


def test_folders_that_are_not_there_are_not_called_clean(tmp_path, capsys):
    assert main(["prune", "--runs", str(tmp_path / "runz"), "--state", str(tmp_path / "stat")]) == 1
    assert "name them with --runs and --state" in capsys.readouterr().err


def test_a_run_that_is_none_cannot_be_pinned(home, capsys):
    assert main(["prune", "--pin", "yesterday", "--runs", str(home / "runs")]) == 1
    assert f"there is no run 'yesterday' with a run_manifest.json in {home}/runs" in capsys.readouterr().err


def in_service(*versions: str, champions: tuple[str, ...] = (), **held: object) -> dict[str, object]:
    """A model whose versions served for a day each, from 1 January on; the last one still does."""
    moves = [
        {"previous": before, "version": version, "time": f"2026-01-{day:02}T00:00:00+00:00"}
        for day, (before, version) in enumerate(pairwise(("", *versions)), start=1)
    ]
    nothing = {"champion": versions[-1], "challenger": "", "interrupted": None, "champions": champions or versions}
    return nothing | {"moves": moves} | held


@pytest.mark.parametrize(
    ("keep_last", "day", "held", "gone"),
    [
        (2, 4, in_service("1", "2", "3", "4", "5"), {"1", "2"}),  # 3 left service on the 4th, not before it
        (2, 31, in_service("1", "2", "3", "4", "5"), {"1", "2", "3"}),
        (4, 31, in_service("1", "2", "3", "4", "5"), {"1"}),
        (9, 31, in_service("1", "2", "3", "4", "5"), set()),
        (2, 1, in_service("1", "2", "3", "4", "5"), set()),
        (2, 31, in_service("1", "2", "3", "2", champions=("1", "2")), set()),  # 3 was rolled back: next would be 1
        (2, 31, in_service("1", "2", "3", "4", challenger="1"), {"2"}),
        (2, 31, in_service("1", "2", "3", "4", interrupted={"previous": "4", "version": "2"}), {"1"}),
        (2, 31, in_service("1", "2", "3", "4", champion="1"), {"2"}),  # moved by other means
    ],
)
def test_versions_that_left_service_before_the_horizon_go_but_never_the_last(keep_last, day, held, gone):
    horizon = garbage_collection.Horizon(datetime(2026, 1, day, tzinfo=UTC), keep_last)
    assert garbage_collection.outlived(held, horizon) == gone


@pytest.mark.parametrize("wrong", [["--older-than", "0"], ["--older-than", "x"], ["--keep-last", "1"]])
def test_a_horizon_that_would_leave_nothing_to_roll_back_to_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        main(["prune", *wrong])
    assert "must be a whole number from" in capsys.readouterr().err
