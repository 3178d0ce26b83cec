"""When a watch retrains, and when it does not."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from local.commands.durations import said, span
from local.commands.run_options import told
from local.commands.watch_decision import FAILED, RUNNING, STOPPED, SUCCEEDED, Run, due, last_run, look, on_drift
from local.lock import BusyError, is_held, only_one
from local.prepare import PROJECT, data_version
from lrm.features.run import retrieve_features
from lrm.features.tables import read_declared
from lrm.registry.run import promote_model, register_model
from lrm.schema import write_signals
from lrm.validation.run import validate_data
from pipeline import _parser, main
from tests.data_worlds import START, write_data_folder
from tests.registry.conftest import write_trained

NOW = datetime(2024, 5, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOLDER = "import sys, time; from pathlib import Path; from local.lock import only_one\n" + (
    "with only_one(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
)


def ended(state=SUCCEEDED, *, hours_ago=5.0, version="old"):
    return Run("r1", version, state, NOW - hours_ago * HOUR)


@pytest.mark.parametrize(
    ("last", "is_due", "why"),
    [
        (None, True, "there was none yet"),
        (ended(), True, "there are new data since r1"),
        (ended(version="new"), False, "no new data since r1"),
        (ended(FAILED, version="new"), False, "no new data since r1, which failed on these data"),
        (ended(FAILED), True, "there are new data since r1"),
        (ended(STOPPED, version="new"), True, "r1 was stopped before it ended; its completed steps are reused"),
        (ended(RUNNING), False, "r1 is under way"),
        (
            ended(hours_ago=1.5),
            False,
            "there are new data, but r1 ended 1 hour ago, and the cooldown lasts until 2024-05-02 12:30 UTC",
        ),
        (ended(hours_ago=2.0), True, "there are new data since r1"),
    ],
)
def test_a_run_is_due_for_new_data_after_the_cooldown_and_never_twice_for_the_same(last, is_due, why):
    assert due("new", last, now=NOW, cooldown=2 * HOUR) == (is_due, why, False)


@pytest.mark.parametrize(
    ("n_failures", "minutes_ago", "is_due"),
    [(1, 4, False), (1, 6, True), (2, 9, False), (2, 11, True), (3, 19, False), (9, 359, False), (99, 361, True)],
)
def test_a_run_that_failed_of_what_passes_is_tried_again_ever_later_up_to_six_hours(n_failures, minutes_ago, is_due):
    last = ended(FAILED, version="new", hours_ago=minutes_ago / 60)._replace(n_failures=n_failures)
    found = due("new", last, now=NOW, cooldown=24 * HOUR)
    assert found.is_due == is_due
    assert found.why.startswith("r1 failed of what passes by itself, and is tried again")


def test_drift_asks_for_a_run_once_enough_signals_have_moved():
    assert on_drift(["hour", "age"], 9, least=2) == (
        True,
        "there are new data, and 2 of 9 signals have drifted: hour, age",
        False,
    )
    found = on_drift(["hour"], 9, least=2)
    assert found == (False, "there are new data, but 1 of 9 signals have drifted: hour; at least 2 asked for", False)
    assert on_drift(None, 0, least=1).is_due


@pytest.mark.parametrize(
    ("text", "length"), [("90s", "1 minute"), ("12h", "12 hours"), ("2w", "2 weeks"), ("1d", "1 day")]
)
def test_spans_are_read_and_said(text, length):
    assert said(span(text)) == length


def test_a_span_that_is_none_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be a number and one of s, m, h, d, w, .*got 'daily'"):
        span("daily")


def holder(lock):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_at_a_time_and_a_lock_whose_holder_died_is_taken_over(tmp_path):
    lock = tmp_path / "runs" / ".lock"
    process = holder(lock)
    assert is_held(lock)
    with pytest.raises(BusyError, match=rf"process {process.pid} holds "), only_one(lock):
        pass
    process.kill()
    process.communicate()
    assert not is_held(lock)
    with only_one(lock) as held:
        assert held.left_by == str(process.pid)
        assert lock.read_text() == f"{os.getpid()}\n"
    with only_one(lock) as held:
        assert held.left_by == ""


def write_run(runs, name, *, as_of="", data="tiny-world", states=("succeeded",), status="succeeded", is_told=False):
    (runs / name).mkdir(parents=True)
    told = {"run_id": name, "data": data, "as_of": as_of, "parameters": {"data_version": f"v-{name}"}}
    (runs / name / "run.json").write_text(json.dumps(told))
    if status:
        summary = {"format": 1, "status": status, "steps": [{"state": state} for state in states]}
        (runs / name / "summary.json").write_text(json.dumps(summary))
    if is_told:
        (runs / name / "interrupted").touch()


def test_the_last_run_is_that_of_the_same_data_and_not_one_of_the_past(tmp_path):
    assert last_run(tmp_path, "tiny-world", now=NOW) is None
    write_run(tmp_path, "1")
    write_run(tmp_path, "2", as_of="2024-01-01")
    write_run(tmp_path, "3", data="another")
    found = last_run(tmp_path, "tiny-world", now=NOW)
    assert found is not None
    assert found[:3] == ("1", "v-1", SUCCEEDED)


def fail(runs, name, *, version, passes):
    write_run(runs, name, status="failed", states=("failed",))
    told = json.loads((runs / name / "run.json").read_text())
    told["parameters"]["data_version"] = version
    (runs / name / "run.json").write_text(json.dumps(told))
    step = runs / name / "steps/find_champion"
    step.mkdir(parents=True)
    error = {"type": "ConnectionError", "message": "refused", "passes": passes}
    record = {"step": "find_champion", "state": "failed", "started": "2024-05-01T00:00:00+00:00", "error": error}
    (step / "record.json").write_text(json.dumps(record))


def test_failures_in_a_row_are_counted_on_the_same_data_alone_and_only_what_passes(tmp_path):
    fail(tmp_path, "1", version="v", passes=True)
    fail(tmp_path, "2", version="other", passes=True)
    fail(tmp_path, "3", version="v", passes=True)
    fail(tmp_path, "4", version="v", passes=True)
    found = last_run(tmp_path, "tiny-world", now=NOW)
    assert found is not None
    assert (found.state, found.n_failures) == (FAILED, 2)
    fail(tmp_path, "5", version="v", passes=False)
    found = last_run(tmp_path, "tiny-world", now=NOW)
    assert found is not None
    assert (found.state, found.n_failures) == (FAILED, 0)


def test_a_run_of_a_wrong_clock_is_not_the_last_for_ever_and_delays_nothing(tmp_path):
    def write(name, started):
        write_run(tmp_path, name)
        told = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps(told | {"started": started.isoformat()}))

    write("2031", NOW + timedelta(days=2500))
    later = (NOW + timedelta(days=2500)).timestamp()
    os.utime(tmp_path / "2031/summary.json", (later, later))
    found = last_run(tmp_path, "tiny-world", now=NOW)
    assert found is not None
    assert (found.run_id, found.ended) == ("2031", None)
    assert due("new", found, now=NOW, cooldown=12 * HOUR) == (True, "there are new data since 2031", False)
    write("2024", NOW - HOUR)
    found = last_run(tmp_path, "tiny-world", now=NOW)
    assert found is not None
    assert found.run_id == "2024"


@pytest.mark.parametrize(
    ("status", "states", "is_told", "state"),
    [
        ("failed", ("failed",), False, FAILED),
        ("failed", ("interrupted", "skipped"), False, FAILED),
        ("failed", ("interrupted", "skipped"), True, STOPPED),
        ("failed", ("succeeded", "skipped"), True, STOPPED),
        ("", (), False, STOPPED),
    ],
    ids=["failed", "a step was killed", "stopped in a step", "stopped between steps", "all went down"],
)
def test_a_run_that_failed_and_one_that_was_stopped_are_told_apart(status, states, is_told, state, tmp_path):
    write_run(tmp_path, "1", status=status, states=states, is_told=is_told)
    found = last_run(tmp_path, "tiny-world", now=NOW)
    assert found is not None
    assert found.state == state


def test_a_run_whose_file_was_torn_is_passed_over(tmp_path):
    write_run(tmp_path, "1")
    write_run(tmp_path, "2")
    (tmp_path / "2/run.json").write_text("")
    found = last_run(tmp_path, "tiny-world", now=NOW)
    assert found is not None
    assert found.run_id == "1"


def crown(home, data, *, reads=None):
    """Make a champion that was trained on the data but for its last days, on some signals of it or all."""
    retrieve_features(data, data / "feature_repo", home / "examples")
    validate_data(home / "examples", None, home / "validation")
    model, evaluation = write_trained(home, "a")
    known = json.loads((model / "manifest.json").read_text()) | {"as_of": (START + timedelta(days=35)).isoformat()}
    (model / "manifest.json").write_text(json.dumps(known))
    signals = read_declared(home / "examples")
    write_signals([one for one in signals if reads is None or one.name in reads], model / "signals.json")
    told = {"registry": f"sqlite:///{home / 'state/mlflow.db'}", "name": "tiny-world", "run_id": "1"}
    made = {"code_version": "c1", "validation": home / "validation"}
    version = register_model(model, evaluation, home / "registered", **told, **made)["version"]
    promote_model(home / "promoted", **told, version=version)


def test_drift_is_measured_again_for_another_champion_and_not_twice_for_the_same(tmp_path):
    data = write_data_folder(tmp_path / "data")
    write_run(tmp_path / "runs", "1")
    given = {"data": str(data), "data_root": None, "cooldown": timedelta(0), "on_drift": 11, "registry": ""}
    watched = argparse.Namespace(**given, runs=tmp_path / "runs", state=tmp_path / "state")
    seen = {}
    assert look(watched, seen)[:2] == (
        True,
        "there are new data, and no champion whose data they could be compared with",
    )
    crown(tmp_path, data)
    found = look(watched, seen)
    assert re.fullmatch(r"there are new data, but \d of 10 signals have drifted.*; at least 11 asked for", found.why)
    assert look(watched, seen) is found


def test_drift_of_what_the_champion_does_not_read_does_not_count(tmp_path):
    data = write_data_folder(tmp_path / "data")
    write_run(tmp_path / "runs", "1")
    crown(tmp_path, data, reads={"hour", "age"})
    given = {"data": str(data), "data_root": None, "cooldown": timedelta(0), "on_drift": 3, "registry": ""}
    found = look(argparse.Namespace(**given, runs=tmp_path / "runs", state=tmp_path / "state"), {})
    assert re.fullmatch(r"there are new data, but \d of 2 signals have drifted.*; at least 3 asked for", found.why)


def asked(home, *options):
    folders = ["--data", str(home / "data"), "--runs", str(home / "runs"), "--state", str(home / "state")]
    return ["watch", "--preset", "tiny", *folders, *options]


def test_a_second_watch_leaves_the_run_to_the_first(tmp_path, capsys):
    process = holder(tmp_path / "runs/.watch.lock")
    assert main(asked(tmp_path, "--once")) == 0
    process.kill()
    process.communicate()
    assert f"no run: one is under way already (process {process.pid} holds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("passes", "line"),
    [
        (False, "no run: no new data since 1, which failed on these data"),
        (True, "no run: 1 failed of what passes by itself, and is tried again after "),
    ],
)
def test_every_look_fails_until_the_failure_of_the_last_run_is_mended(tmp_path, capsys, passes, line):
    data = write_data_folder(tmp_path / "data")
    fail(tmp_path / "runs", "1", version=data_version(data), passes=passes)
    for _ in range(2):
        assert main(asked(tmp_path, "--once")) == 1
        assert line in capsys.readouterr().out
    assert main(asked(tmp_path, "--once", "--cooldown", "7d")) == 1
    write_run(tmp_path / "runs", "2")
    told = json.loads((tmp_path / "runs/2/run.json").read_text())
    told["parameters"]["data_version"] = data_version(data)
    (tmp_path / "runs/2/run.json").write_text(json.dumps(told))
    assert main(asked(tmp_path, "--once")) == 0


def test_new_data_that_wait_for_a_cooldown_do_not_hide_that_the_last_run_failed(tmp_path, capsys):
    write_data_folder(tmp_path / "data")
    fail(tmp_path / "runs", "1", version="old", passes=False)
    assert main(asked(tmp_path, "--once", "--cooldown", "7d")) == 1
    assert "the cooldown lasts until" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"), [("events.parquet", "Spark"), ("dataset.json", "nor a folder with dataset.json")]
)
def test_a_fault_of_the_world_at_a_look_is_said_and_ends_no_watch(tmp_path, capsys, name, told):
    data = write_data_folder(tmp_path / "data")
    (data / name).unlink()
    (data / name).mkdir()
    assert main(asked(tmp_path, "--once")) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "no run: " in line)
    assert told in line


def test_a_watch_hands_all_that_it_was_asked_for_to_its_runs(tmp_path):
    given = ["--seed", "3", "--image", "i:1", "--registry", "http://127.0.0.1:9", "--ledger", "gs://b/l"]
    given += ["--artifacts", "gs://b/a", "--notify", "mail -s 'a run' ops", "--notify", "https://example.org/x"]
    given += ["--step-timeout", "90m", "--detailed-exit-code", "--data-root", str(tmp_path)]
    parser = _parser()
    watched = vars(parser.parse_args(asked(tmp_path, *given)))
    started = vars(parser.parse_args(["run", *told(parser.parse_args(asked(tmp_path, *given)))]))
    shared = (watched.keys() & started.keys()) - {"command", "execute", "runs", "state"}
    assert {name: started[name] for name in shared} == {name: watched[name] for name in shared}
    assert shared == started.keys() - {"command", "execute", "runs", "state", "as_of", "allow_backfill", "fresh"}


def test_data_that_cannot_be_found_are_said_and_the_watch_goes_on_until_it_is_stopped(tmp_path):
    started = subprocess.Popen(
        [sys.executable, "pipeline.py", *asked(tmp_path, "--every", "1s")],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    lines = [started.stdout.readline() for _ in range(2)]
    assert all("no run: '" in line and "is neither built-in data" in line for line in lines)
    started.send_signal(signal.SIGINT)
    printed, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    assert printed.endswith("UTC  stopped\n")
    assert (tmp_path / "runs/.watch.lock").read_text() == ""


def show(world, data, *, days):
    """Write a data folder that knows the first days of a world."""
    end = START + timedelta(days=days)
    shutil.copytree(world, data, dirs_exist_ok=True)
    for path in data.glob("*.parquet"):
        pl.read_parquet(path).filter(pl.col("event_time") < end).write_parquet(path)
    told = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(told | {"as_of": end.isoformat()}))


@pytest.mark.slow
def test_a_watch_retrains_for_new_data_and_for_drift_alone(tmp_path, capfd):
    def look(*options):
        code = main(asked(tmp_path, "--once", *options))
        (line,) = re.findall(r"UTC  ((?:no )?run: .*)", capfd.readouterr().out)
        return code, line

    world = write_data_folder(tmp_path / "world", n_users=200, n_days=42)
    show(world, tmp_path / "data", days=40)
    assert look() == (0, "run: there was none yet")
    code, line = look()
    assert (code, line[:27]) == (0, "no run: no new data since 2")

    show(world, tmp_path / "data", days=42)
    code, line = look("--on-drift", "--cooldown", "7d")
    assert "but 2" in line
    assert "the cooldown lasts until" in line
    assert look("--on-drift")[1] == "no run: there are new data, but 0 of 10 signals have drifted; at least 1 asked for"

    requests = pl.read_parquet(tmp_path / "data/requests.parquet")
    newest = pl.col("event_time") >= pl.col("event_time").max() - timedelta(days=2)
    moved = pl.when(newest).then(3.0).otherwise("hour").alias("hour")
    requests.with_columns(moved).write_parquet(tmp_path / "data/requests.parquet")
    assert look("--on-drift") == (0, "run: there are new data, and 1 of 10 signals have drifted: hour")


@pytest.mark.slow
def test_a_watch_that_is_stopped_ends_its_run_which_goes_on_at_the_next_look(tmp_path, capfd):
    write_data_folder(tmp_path / "data", n_users=200)
    command = [sys.executable, "pipeline.py", *asked(tmp_path, "--every", "1d")]
    started = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    while "start   train_lrm" not in started.stdout.readline():
        assert started.poll() is None
    time.sleep(0.5)
    started.send_signal(signal.SIGTERM)
    printed, _ = started.communicate(timeout=120)
    assert started.returncode == 0
    assert printed.endswith("UTC  stopped\n")
    assert main(asked(tmp_path, "--once")) == 0
    printed = capfd.readouterr().out
    assert "was stopped before it ended; its completed steps are reused" in printed
    assert re.search(r"^  reused +retrieve_features", printed, re.MULTILINE)
