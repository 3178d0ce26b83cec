"""Published systems run the whole workflow, one after another in one registry: each is judged beside the last."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrm.model import artifact
from lrm.presets import published
from tests.order_worlds import write_order_folder

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_order_folder(folder / "data")
    return folder


def pipeline(home: Path, command: str, *options: str) -> str:
    """Run a command of the workflow; return what it printed."""
    places = ["--state", str(home / "state"), "--runs", str(home / "runs")]
    asked = [sys.executable, str(PROJECT / "pipeline.py"), command, *places, *options]
    done = subprocess.run(asked, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(home: Path, preset: str) -> Path:
    """Run the workflow; return the folder of the run."""
    pipeline(home, "run", "--data", str(home / "data"), "--preset", preset)
    return (home / "runs/latest").resolve()


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def block_in_service(home: Path) -> str:
    """The block of the model that servers follow."""
    return artifact.load(home / "state/serving/orders/current/bundle").config.model.block


@pytest.mark.slow
def test_each_is_trained_checked_judged_beside_the_last_promoted_served_and_rolled_back(home):
    blocks: list[str] = []
    for version, (name, preset) in enumerate(published.PRESETS.items(), start=1):
        folder = run(home, name)
        summary, block = summary_of(folder), preset().model.block
        assert summary["status"] == "succeeded"
        judged = json.loads((folder / "steps/evaluate_model/evaluation.json").read_text())
        found = judged["models"]["challenger"]["retrieval"]["ndcg@10"]["value"]
        assert found > 0.5, "the next item is the one that follows on the cycle"
        assert ("champion" in judged["models"]) == (version > 1)
        if summary["verdict"] != "promote":
            pipeline(home, "approve", str(version), "--reason", "to serve it")
        assert block_in_service(home) == block
        blocks.append(block)
    for block in blocks[-2::-1]:
        pipeline(home, "rollback", "--reason", "back to the one before")
        assert block_in_service(home) == block
