import json
import os
import signal
import subprocess
import sys
import time

from local.prepare import PROJECT
from local.runner import _close, environment, unmet
from lrm.reporting.run_files import STEPS

SLOW_STEP = """
import pathlib, signal, sys, time
def finish(*_):
    time.sleep(2)
    pathlib.Path(sys.argv[1], "record").write_text("written")
    sys.exit()
signal.signal(signal.SIGINT, finish)
pathlib.Path(sys.argv[1], "started").write_text("")
time.sleep(60)
"""
ENGINE_THAT_ENDS_FIRST = f"""
import os, pathlib, subprocess, sys, time
from local.runner import run
def workflow(folder):
    subprocess.Popen([sys.executable, "-c", {SLOW_STEP!r}, folder])
    time.sleep(60)
folder = pathlib.Path(sys.argv[1])
sys.exit(run(workflow, {{"folder": str(folder)}}, folder, reuse=False))
"""


ENGINE_THAT_DOES_NOTHING = """
import pathlib, sys, time
from local.runner import run
from lrm.process_environment import settle
settle()
print("begun", flush=True)
sys.stdin.read()
folder = pathlib.Path(sys.argv[1])
sys.exit(run(lambda: time.sleep(1), {}, folder, reuse=False))
"""


def records(verdict: str, *, without: tuple[str, ...] = ()) -> dict:
    states = {step: {"state": "succeeded", "metrics": {}} for step in STEPS if step not in without}
    states["evaluate_model"]["metrics"]["verdict"] = verdict
    return states


def test_a_branch_that_was_skipped_silently_is_noticed():
    assert unmet(records("promote")) == []
    assert unmet(records("keep", without=("promote_model",))) == []
    assert unmet(records("promote", without=("promote_model", "roll_out"))) == ["promote_model", "roll_out"]
    assert unmet(records("keep", without=("promote_model", "roll_out"))) == ["roll_out"]


def test_a_reused_step_counts_as_run_and_a_failed_one_does_not():
    seen = records("keep", without=("promote_model",))
    seen["train_lrm"]["state"], seen["register_model"]["state"] = "reused", "failed"
    assert unmet(seen) == ["register_model"]


def test_what_the_user_set_stays_and_the_run_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("LRM_RUN_DIR", "/elsewhere")
    made = environment(tmp_path / "run")
    assert made["OMP_NUM_THREADS"] == "7"
    assert made["LRM_RUN_DIR"] == str(tmp_path / "run")
    assert made["GX_ANALYTICS_ENABLED"] == "false"


def test_a_step_that_was_killed_before_it_could_say_why_shows_the_end_of_the_log(tmp_path, capsys):
    step = tmp_path / "runs/1/steps/train_lrm"
    step.mkdir(parents=True)
    running = {
        "step": "train_lrm",
        "state": "running",
        "started": "2026-01-01T00:00:00+00:00",
        "metrics": {},
        "files": [],
    }
    (step / "record.json").write_text(json.dumps(running | {"inputs": [], "error": None}))
    (tmp_path / "runs/1/log.txt").write_text("Killed\n")
    assert _close(tmp_path / "runs/1", 1) == 1
    assert "before it could say why. The end of the log:\nKilled" in capsys.readouterr().out


def test_an_interrupt_waits_for_steps_that_outlive_the_engine_and_a_second_one_changes_nothing(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", ENGINE_THAT_ENDS_FIRST, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE
    )
    while not (tmp_path / "started").exists():
        assert run.poll() is None
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGINT)
    time.sleep(0.7)
    os.kill(run.pid, signal.SIGINT)
    printed, _ = run.communicate(timeout=60)
    assert run.returncode == 130, printed
    assert (tmp_path / "record").read_text() == "written"
    assert (tmp_path / "interrupted").is_file()
    assert b"Start the same command again" in printed


def test_a_run_whose_output_nobody_reads_any_more_goes_on_to_its_report(tmp_path):
    asked = [sys.executable, "-c", ENGINE_THAT_DOES_NOTHING, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(asked, cwd=PROJECT, **pipes) as started:
        assert started.stdout.readline() == b"begun\n"
        started.stdout.close()
        started.stdin.close()
        complained = started.stderr.read()
    assert (started.returncode, complained) == (1, b"")  # no step ran, which counts as failed
    assert (tmp_path / "report.html").is_file()
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
