"""A simulated year: its windows, what is taken from their runs, and where it goes on."""

import argparse
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from local.commands.backtest import execute, window_ends
from local.commands.backtest_window import completed_run, only_after, retold
from lrm.errors import DataError, LrmError
from pipeline import main
from tests.data_worlds import write_data_folder
from tests.worlds import write_examples

END = datetime(2024, 2, 10, tzinfo=UTC)


def dataset(folder, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    told = {"name": "world", "protocol": "temporal", "as_of": END.isoformat(), "validation_days": 2, "test_days": 3}
    told |= changed
    pl.DataFrame({"event_time": [END - timedelta(days=day) for day in range(20)]}).write_parquet(
        folder / "requests.parquet"
    )
    (folder / "dataset.json").write_text(json.dumps(told))
    return folder


def test_windows_end_at_equal_steps_the_last_where_the_data_end(tmp_path):
    ends = window_ends(dataset(tmp_path), n=3, every=timedelta(days=2))
    assert [end.day for end in ends] == [6, 8, 10]


def test_data_that_are_not_cut_by_time_cannot_be_stepped_through(tmp_path):
    with pytest.raises(DataError, match="world is cut by leave-one-out, not by time"):
        window_ends(dataset(tmp_path, protocol="leave-one-out"), n=3, every=timedelta(days=2))


def test_a_first_window_with_nothing_to_train_on_is_refused_before_anything_runs(tmp_path):
    assert len(window_ends(dataset(tmp_path), n=14, every=timedelta(days=1))) == 14
    with pytest.raises(DataError, match=r"first of 15 windows would end at 2024-01-27: .* take 5 days, .* 2024-01-22"):
        window_ends(dataset(tmp_path), n=15, every=timedelta(days=1))


def test_a_folder_with_another_backtest_is_refused(tmp_path):
    data = dataset(tmp_path / "data")
    (data / "feature_repo").mkdir()
    (tmp_path / "backtest.json").write_text(json.dumps({"settings": {"data": "world", "seed": 1}, "windows": []}))
    asked = argparse.Namespace(
        data=str(data), data_root=None, windows=2, every=timedelta(days=1), preset="tiny", seed=0, folder=tmp_path
    )
    with pytest.raises(LrmError, match=r"holds another backtest .*name another --folder"):
        execute(asked)


def comparison(against, metric, difference):
    row = {"task": "ranking", "metric": metric, "against": against, "difference": difference}
    return row | {"low": difference - 0.01, "high": difference + 0.01, "n_users": 50}


def write_run(runs, name, *, status, verdict="promote", registered="succeeded"):
    folder = runs / name
    files = {
        "run.json": {"run_id": name, "as_of": END.isoformat()},
        "summary.json": {"status": status},
        "steps/evaluate_model/evaluation.json": {
            "verdict": verdict,
            "reasons": ["It is better."],
            "primary": {"task": "ranking", "metric": "auc"},
            "models": {"challenger": {"ranking": {"auc": {"value": 0.8}}}},
            "comparisons": [
                comparison("popular", "auc", 0.3),
                comparison("champion", "log_loss", -0.2),
                comparison("champion", "auc", 0.02),
            ],
        },
        "steps/validate_data/validation.json": {
            "drift": [
                {"signal": "age", "distance": 0.1, "threshold": 0.2, "drifted": False},
                {"signal": "hour", "distance": 0.3, "threshold": 0.2, "drifted": True},
            ]
        },
    }
    made = {"version": "4"} if registered in ("succeeded", "reused") else {}
    for step, state, metrics in (
        ("find_champion", "succeeded", {"version": "3"}),
        ("register_model", registered, made),
    ):
        if state:
            files[f"steps/{step}/record.json"] = {"step": step, "state": state, "started": "2024", "metrics": metrics}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))
    return folder


def test_a_window_retells_what_its_run_decided_on(tmp_path):
    write_run(tmp_path, "1", status="succeeded")
    window = retold(tmp_path, END)
    assert (window["verdict"], window["version"], window["champion_before"]) == ("promote", "4", "3")
    assert window["gain"] == {"difference": 0.02, "low": 0.01, "high": 0.03, "n_users": 50}
    assert (window["n_drifted"], window["n_compared"], window["drifted"]) == (1, 2, ["hour"])


def test_after_a_run_that_was_stopped_the_first_verdict_counts_and_only_a_whole_run_is_completed(tmp_path):
    write_run(tmp_path, "1", status="failed")
    assert completed_run(tmp_path, END) is None
    again = write_run(tmp_path, "2", status="succeeded", verdict="keep")
    assert completed_run(tmp_path, END) == again
    assert retold(tmp_path, END)["verdict"] == "promote"
    assert completed_run(tmp_path, END - timedelta(days=1)) is None


@pytest.mark.parametrize("registered", ["", "running", "failed"])
def test_a_verdict_on_a_model_that_was_never_registered_does_not_count(registered, tmp_path):
    write_run(tmp_path, "1", status="failed", registered=registered)
    write_run(tmp_path, "2", status="succeeded", registered="reused")
    assert (retold(tmp_path, END)["run_id"], retold(tmp_path, END)["version"]) == ("2", "4")


def test_the_next_window_is_what_was_open_at_the_end_of_this_one(tmp_path):
    examples = write_examples(tmp_path / "examples", n_users=10)
    requests = pl.read_parquet(examples / "requests.parquet")
    end = requests["event_time"].max() - timedelta(days=1)
    manifest = json.loads((examples / "manifest.json").read_text())
    manifest["data"]["horizon_seconds"] = 86_400
    (examples / "manifest.json").write_text(json.dumps(manifest))
    n = only_after(examples, tmp_path / "next", end.isoformat())
    tested = pl.read_parquet(tmp_path / "next/requests.parquet").filter(pl.col("split") == "test")
    assert n == tested.height == requests.filter(pl.col("event_time") >= end - timedelta(days=1)).height > 0
    before = pl.read_parquet(tmp_path / "next/requests.parquet").filter(pl.col("split") == "train")
    assert before.height == requests.filter(pl.col("split") == "train").height


@pytest.mark.slow
def test_a_backtest_promotes_judges_and_continues_where_it_was(tmp_path):
    write_data_folder(tmp_path / "data", n_users=200)
    command = ["backtest", "--data", str(tmp_path / "data"), "--every", "2d", "--folder", str(tmp_path / "backtest")]
    assert main([*command, "--windows", "3"]) == 0
    told = json.loads((tmp_path / "backtest/backtest.json").read_text())
    first, second, third = told["windows"]
    assert (first["verdict"], first["champion_before"], first["gain"], first["later"]) == ("promote", "", None, None)
    assert (second["champion_before"], second["later"]["n_users"], third["later"]) == ("1", 200, None)
    assert second["gain"]["n_users"] == 200
    runs = sorted(path.name for path in (tmp_path / "backtest/runs").iterdir())
    assert main([*command, "--windows", "3"]) == 0
    assert sorted(path.name for path in (tmp_path / "backtest/runs").iterdir()) == runs
