"""A step that hangs is noticed, ended and told of."""

import json
import subprocess
import sys

import pytest

from local.prepare import PROJECT
from local.step_timeout import Deadline, StepTimeoutError

HUNG = """
import os, pathlib, sys, time
from kfp import local
from local.runner import run
from lrm.record import recorded

@recorded("train_lrm", output="out")
def door(out):
    time.sleep(60)
    return {}

def workflow(folder, is_recorded):
    if is_recorded and not os.fork():
        door(pathlib.Path(folder, "out"))
    time.sleep(60)

folder = pathlib.Path(sys.argv[1])
given = {"folder": str(folder), "is_recorded": sys.argv[2] == "recorded"}
sys.exit(run(workflow, given, folder, reuse=False, step_timeout_s=4.0))
"""


def hung(tmp_path, *words):
    run_dir, program = tmp_path / "runs/1", tmp_path / "hung.py"
    run_dir.mkdir(parents=True)
    program.write_text(HUNG)
    command = [sys.executable, str(program), str(run_dir), *words]
    environment = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    return done, run_dir


def test_a_step_that_hangs_is_ended_and_has_failed_and_says_why(tmp_path):
    done, run_dir = hung(tmp_path, "recorded")
    assert done.returncode == 1, done.stdout + done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    states = {step["name"]: step["state"] for step in summary["steps"]}
    assert (summary["status"], states["train_lrm"]) == ("failed", "failed")
    message = "train_lrm had not ended after 4 seconds, its time limit: it was ended"
    assert (summary["error"]["type"], summary["error"]["message"]) == ("StepTimeoutError", message)
    assert "--step-timeout" in summary["error"]["remedy"]
    assert message in done.stdout
    record = json.loads((run_dir / "steps/train_lrm/record.json").read_text())
    assert record["error"]["passes"] is True
    assert not (run_dir / "interrupted").exists()


def test_an_engine_that_begins_no_step_is_ended_likewise(tmp_path):
    done, run_dir = hung(tmp_path, "silent")
    assert done.returncode == 1, done.stdout + done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["error"]["message"].startswith("no step had begun or ended after 4 seconds")


def test_every_step_has_the_whole_limit_and_0_is_none():
    now = [0.0]
    deadline, endless = (Deadline(limit_s, clock=lambda: now[0]) for limit_s in (3600.0, 0.0))
    for states in ({"a": "running"}, {"a": "succeeded"}, {"a": "succeeded", "b": "running"}):
        records = {step: {"state": state} for step, state in states.items()}
        now[0] += 3000
        for one in (deadline, endless):
            one.check(records)
    now[0] += 3600
    deadline.check(records)
    now[0] += 1
    endless.check(records)
    with pytest.raises(StepTimeoutError, match="b had not ended after 1 hour, its time limit") as caught:
        deadline.check(records)
    assert caught.value.step == "b"
