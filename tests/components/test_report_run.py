"""The exit step, started as the pipeline engine starts it, with the status that a cluster's driver passes."""

import json
from pathlib import Path

import pytest
from kfp.dsl import executor

from components.report_run import report_run
from lrm.record import RUN_DIR, RUN_ID, RUNS_ROOT
from tests.reporting import runs


def passed(state: str) -> dict:
    """The status as KFP 2.17 writes it: the state is that of ML Metadata, the error is always empty."""
    return {"state": state, "pipelineTaskName": "retrain", "pipelineJobResourceName": "token-factory-x7k", "error": {}}


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(RUN_DIR, raising=False)
    monkeypatch.setenv(RUNS_ROOT, str(tmp_path / "runs"))
    monkeypatch.setenv(RUN_ID, "4c1d")
    folder = tmp_path / "runs/4c1d"
    folder.mkdir(parents=True)
    return folder


def reported(run_dir: Path, state: str) -> dict:
    def made(name: str, kind: str) -> dict:
        uri = str(run_dir.parent / f"made/{name}")
        return {"artifacts": [{"name": name, "uri": uri, "type": {"schemaTitle": f"system.{kind}"}, "metadata": {}}]}

    asked = {
        "inputs": {"parameterValues": {"status": passed(state)}},
        "outputs": {
            "artifacts": {"page": made("page", "HTML"), "summary": made("summary", "Markdown")},
            "outputFile": str(run_dir.parent / "made/executor_output.json"),
        },
    }
    (run_dir.parent / "made").mkdir()
    executor.Executor(executor_input=asked, function_to_execute=report_run.python_func).execute()
    return json.loads((run_dir / "summary.json").read_text())


@pytest.mark.parametrize("state", ["COMPLETE", "CACHED", "RUNNING"])
def test_a_run_that_ended_well_on_a_cluster_is_reported_as_succeeded(run_dir, state):
    runs.promoted(run_dir)
    assert reported(run_dir, state)["status"] == "succeeded"


def test_a_run_that_failed_on_a_cluster_names_the_step_and_its_words(run_dir):
    runs.failed(run_dir)
    found = reported(run_dir, "FAILED")
    assert (found["status"], found["error"]["step"], found["error"]["type"]) == (
        "failed",
        "validate_data",
        "ValidationFailed",
    )
