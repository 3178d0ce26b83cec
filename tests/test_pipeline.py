"""The workflow, all of it on a tiny world, run after run; what is compiled for a cluster is in test_compiled.py."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from benchmarks.faults import CHECKPOINT, half_written, kill_in, start
from local.exit_codes import KEPT, SUSPECT
from lrm.record import read_records
from lrm.schema import read_signals
from pipeline import main
from tests.data_worlds import write_data_folder

PROJECT = Path(__file__).resolve().parent.parent
REUSED = {"retrieve_features", "pretrain_token_factory", "train_lrm"}
NEW_SIGNAL = "moonlight"
ODD = "it's python3 [1]*? \N{LATIN SMALL LETTER A WITH DIAERESIS} 50%#x%41"
"""A folder's name in which shells, addresses, patterns and the engine have signs of their own."""
PASSWORD = "a-password-that-no-file-may-hold"
AMONG = {
    "http_proxy": "http://127.0.0.1:1",
    "https_proxy": "http://127.0.0.1:1",
    "no_proxy": "example.com",
    "PYTHONWARNINGS": "error",
    "MLFLOW_TRACKING_USERNAME": "ada",
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
}
"""Surroundings that a run must not depend on."""


class Run(NamedTuple):
    """What a run left."""

    exit_code: int
    printed: str
    folder: Path
    summary: dict

    def states(self) -> dict[str, str]:
        return {step["name"]: step["state"] for step in self.summary["steps"]}


def command(home: Path, *, data: str = "data", options: tuple[str, ...] = ()) -> list[str]:
    folders = ["--data", str(home / data), "--runs", str(home / "runs"), "--state", str(home / "state")]
    return [sys.executable, str(PROJECT / "pipeline.py"), "run", "--preset", "tiny", *folders, *options]


def run(home: Path, *, data: str = "data", options: tuple[str, ...] = ()) -> Run:
    """Run the workflow from a folder with other code in it, among surroundings that must not matter."""
    elsewhere, temporary = home / "elsewhere/lrm", home / "tmp"
    elsewhere.mkdir(parents=True, exist_ok=True)
    (elsewhere / "__init__.py").write_text("raise SystemExit('this is another lrm')\n")
    temporary.mkdir(exist_ok=True)
    among = os.environ | AMONG | {"TMPDIR": str(temporary)}
    asked = command(home, data=data, options=options)
    done = subprocess.run(asked, cwd=elsewhere.parent, env=among, capture_output=True, text=True)
    latest = (home / "runs/latest").resolve()
    return Run(done.returncode, done.stdout + done.stderr, latest, json.loads((latest / "summary.json").read_text()))


def write_world(folder: Path) -> Path:
    write_data_folder(folder / "data", n_users=200)  # enough to learn from in forty steps, so that the model wins
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("home") / ODD)


@pytest.fixture(scope="module")
def first(home) -> Run:
    return run(home)


@pytest.fixture(scope="module")
def second(home, first) -> Run:
    return run(home, options=("--detailed-exit-code", "--notify", "cp /dev/stdin told.json", "--notify", "false"))


@pytest.fixture(scope="module")
def with_new_signal(home, second) -> Run:
    """One more column in the data, and one more line in views.py."""
    requests = pl.read_parquet(home / "data/requests.parquet", glob=False)
    moonlight = (pl.int_range(pl.len()) % 29 / 29).cast(pl.Float32).alias(NEW_SIGNAL)
    requests.with_columns(moonlight).write_parquet(home / "data/requests.parquet")
    (views,) = (home / "data/feature_repo").glob("views.py")
    line = f'        Field(name="{NEW_SIGNAL}", dtype=Float32, tags=dense("query", "request", minimum=0, maximum=1)),\n'
    hour = next(line for line in views.read_text().splitlines(keepends=True) if 'Field(name="hour"' in line)
    views.write_text(views.read_text().replace(hour, hour + line))
    return run(home)


def test_the_first_run_promotes_and_serves_its_model(first):
    assert first.exit_code == 0, first.printed
    assert first.summary["status"] == "succeeded"
    assert first.summary["verdict"] == "promote"
    assert first.summary["model"] == {"name": "tiny-world", "version": "1", "aliases": ["challenger", "champion"]}
    assert set(first.states().values()) == {"succeeded"}
    assert read_records(first.folder)["roll_out"]["metrics"]["version"] == "1"


def test_a_run_leaves_no_temporary_file_and_a_password_in_none_of_its_files(home, first):
    assert list((home / "tmp").iterdir()) == []
    left = [path for folder in ("runs", "state") for path in (home / folder).rglob("*") if path.is_file()]
    assert {"run.json", "log.txt", "report.html", "mlflow.db"} <= {path.name for path in left}
    assert [path for path in left if PASSWORD.encode() in path.read_bytes()] == []


def test_a_run_keeps_its_registry_in_the_folder_of_that_very_name(home, first):
    assert {path.name for path in home.iterdir()} == {"data", "elsewhere", "runs", "state", "tmp"}
    assert [path.name for path in home.parent.iterdir()] == [ODD]


def test_the_terminal_shows_each_step_and_ends_with_the_verdict_and_the_report(first):
    for step in first.states():
        assert re.search(rf"^  done +{step} ", first.printed, re.MULTILINE)
    assert "Verdict: promote" in first.printed
    assert str(first.folder / "report.html") in first.printed
    assert "Traceback" not in first.printed


def test_the_gate_learns_from_the_registry_what_was_rolled_back(first):
    judged = json.loads((first.folder / "steps/evaluate_model/evaluation.json").read_text())
    (rule,) = [rule for rule in judged["rules"] if rule["rule"] == "Not rolled back"]
    assert (rule["outcome"], rule["seen"]) == ("passed", "never rolled back")


def test_the_report_stands_alone(first):
    page = (first.folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?https?:""", page)


def test_every_registered_version_leads_back_to_the_manifest_of_its_run(first):
    (bundle,) = (first.folder.parent.parent / "state").rglob("data/bundle/bundle.json")
    lineage = json.loads(bundle.read_text())["lineage"]
    facts = json.loads((first.folder.parent / lineage["run_id"] / "run_manifest.json").read_text())
    assert facts["data"]["sha256"] == lineage["data_sha256"]
    assert facts["features"]["service_version"] == lineage["feature_service_version"]
    assert facts["configuration"] == lineage["config"]
    assert facts["outcome"]["version"] == "1"


def test_an_unchanged_second_run_reuses_the_training_and_keeps_the_champion(second):
    assert second.exit_code == (SUSPECT if second.summary["warnings"] else KEPT), second.printed
    assert second.summary["verdict"] == "keep"
    assert {step for step, state in second.states().items() if state == "reused"} == REUSED
    assert second.states()["promote_model"] == "skipped"
    assert re.search(r"^  reused +train_lrm", second.printed, re.MULTILINE)


def test_whoever_is_to_be_told_is_handed_the_summary_and_one_that_fails_changes_nothing(second):
    assert json.loads((second.folder / "told.json").read_text()) == second.summary
    assert "Warning: false was not notified: it ended with status 1" in second.printed
    assert second.summary["status"] == "succeeded"
    assert "--notify cp --notify false" in json.loads((second.folder / "run.json").read_text())["command"]


def test_a_kept_champion_still_gets_fresh_online_features(second):
    assert read_records(second.folder)["roll_out"]["metrics"]["version"] == "1"


@pytest.mark.slow
def test_a_run_made_again_from_its_manifest_gives_the_same_and_touches_nothing_in_service(home, first):
    before = in_service(home)
    asked = [sys.executable, "pipeline.py", "reproduce", first.folder.name, "--runs", str(home / "runs")]
    done = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same, to the last digit compared." in done.stdout
    assert re.search(r"^weights +\w{12} +\w{12} +same$", done.stdout, re.MULTILINE)
    assert in_service(home) == before


def in_service(home: Path) -> list[str]:
    """What lies in the state folder, and where the link of the model in service leads."""
    return [f"{path} {path.resolve()} {path.stat().st_mtime_ns}" for path in sorted((home / "state").rglob("*"))]


def test_a_new_column_and_one_line_in_views_flow_through_every_step(with_new_signal):
    done = with_new_signal
    assert done.exit_code == 0, done.printed
    assert set(done.states().values()) <= {"succeeded", "skipped"}
    folders = {step: Path(path) for record in read_records(done.folder).values() for step, path in inputs(record)}
    for step in ("retrieve_features", "train_lrm"):
        assert NEW_SIGNAL in [signal.name for signal in read_signals(folders[step] / "signals.json")]
    assert NEW_SIGNAL in (folders["validate_data"] / "statistics.json").read_text()
    checks = json.loads((folders["validate_data"] / "validation.json").read_text())["checks"]
    assert NEW_SIGNAL in {check["column"] for check in checks}
    assert NEW_SIGNAL in (folders["train_lrm"] / "vocabulary.json").read_text()
    assert NEW_SIGNAL in (done.folder / "report.html").read_text()


def inputs(record: dict) -> list[tuple[str, str]]:
    return [(json.loads(Path(path, "record.json").read_text())["step"], path) for path in record["inputs"]]


def test_prune_lists_what_only_lost_and_never_what_the_ledger_names(home, first, second, with_new_signal):
    asked = [sys.executable, "pipeline.py", "prune", "--runs", str(home / "runs"), "--state", str(home / "state")]
    done = subprocess.run([*asked, "--yes"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (home / "runs").glob("2*")} == {first.folder.name, with_new_signal.folder.name}
    versions = {first.folder.name, with_new_signal.folder.name}
    bundles = (home / "state/artifacts/models").rglob("data/bundle/bundle.json")
    assert {json.loads(path.read_text())["lineage"]["run_id"] for path in bundles} == versions
    assert (home / "state/serving/tiny-world/current/bundle/weights.safetensors").is_file()


def test_broken_data_stop_before_training_with_an_error_a_person_can_act_on(tmp_path):
    data = write_data_folder(tmp_path / "data")
    requests = pl.read_parquet(data / "requests.parquet")
    requests.with_columns(hour=pl.lit(99.0)).write_parquet(data / "requests.parquet")
    done = run(tmp_path)
    assert done.exit_code == 1
    assert done.summary["status"] == "failed"
    assert done.states()["validate_data"] == "failed"
    assert done.states()["pretrain_token_factory"] == "skipped"
    assert re.search(r"FAILED +validate_data .*ValidationFailed", done.printed)
    assert "requests.hour" in done.printed
    assert "Traceback" not in done.printed
    assert f"Log:     {done.folder / 'log.txt'}" in done.printed
    assert "requests.hour" in (done.folder / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_is_interrupted_and_killed_again_and_again_ends_in_the_same_model(first, tmp_path):
    write_world(tmp_path)
    data = str(tmp_path / "data")
    for step in ("retrieve_features", CHECKPOINT):
        kill_in(start(tmp_path, data), tmp_path, step, after=0.2)
    printed = interrupt_in(tmp_path, "train_lrm")
    assert "Start the same command again: steps that completed are reused." in printed
    assert json.loads((tmp_path / "runs/latest/summary.json").read_text())["status"] == "failed"
    kill_in(start(tmp_path, data), tmp_path, "register_model", after=0.2)
    assert half_written(tmp_path)

    again = run(tmp_path)
    assert again.exit_code == 0, again.printed
    assert {step for step, state in again.states().items() if state == "reused"} == {*REUSED, "validate_data"}
    assert weights_sha256(again) == weights_sha256(first)
    assert read_records(again.folder)["roll_out"]["metrics"]["version"] == again.summary["model"]["version"]
    assert half_written(tmp_path) == []


def interrupt_in(home: Path, step: str) -> str:
    """What a run prints that is interrupted while a step runs."""
    started = subprocess.Popen(command(home), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert started.stdout is not None
    while f"start   {step}" not in started.stdout.readline():
        assert started.poll() is None
    os.kill(started.pid, signal.SIGINT)
    printed, _ = started.communicate(timeout=60)
    assert started.returncode == 130
    return printed


def weights_sha256(done: Run) -> str:
    evaluation = json.loads((done.folder / "steps/evaluate_model/evaluation.json").read_text())
    return evaluation["about"]["challenger"]["weights_sha256"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "nowhere"), r"error: 'nowhere' is neither built-in data \(complete-journey, .*no such folder"),
        (("--preset", "huge"), "error: no preset is called 'huge'; there are default, "),
        (
            ("--registry", "foo"),
            "error: registry 'foo' is neither a sqlite:///PATH nor the http:// address of an MLflow",
        ),
        (
            ("--registry", "http://127.0.0.1:1"),
            "error: no registry answers at http://127.0.0.1:1: .*Connection refused",
        ),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_nothing(options, message, tmp_path):
    write_data_folder(tmp_path / "data")
    done = subprocess.run(command(tmp_path, options=options), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(message + "[^\n]*\n", done.stderr)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("option", "value"), [("--as-of", "yesterday"), ("--seed", "-1")])
def test_a_value_that_cannot_be_is_refused_before_anything_runs(option, value, tmp_path):
    done = subprocess.run(command(tmp_path, options=(option, value)), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.search(f"error: argument {option}: must be .*, got '{value}'", done.stderr)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("runs", ["file", "file/below", "/proc/none"])
def test_runs_that_can_be_no_folder_are_one_line_that_names_the_option(runs, tmp_path, capsys):
    write_data_folder(tmp_path / "data")
    (tmp_path / "file").touch()
    assert main(["run", "--data", str(tmp_path / "data"), "--preset", "tiny", "--runs", str(tmp_path / runs)]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: \[Errno \d+\] .*; /\S+ can be no folder: name another one with --runs\n", told)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--runs", "file", "can be no folder"), ("--state", "file/below", "--state\n"), ("--preset", "huge", "no preset")],
)
def test_what_cannot_be_is_told_before_the_data_are_looked_for(option, value, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["run", "--data", "nowhere", option, value]) == 1
    assert message in capsys.readouterr().err
