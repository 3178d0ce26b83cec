from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from lrm import reporting
from lrm.reporting.run import report_run
from lrm.reporting.run_files import STEPS
from lrm.reporting.summary import summary_text
from tests.reporting import runs

SCHEMA = json.loads((Path(reporting.__file__).parent / "summary.schema.json").read_text())
ENDINGS = {"promoted": "SUCCEEDED", "kept": "SUCCEEDED", "failed": "FAILED", "killed": "FAILED"}


def states(summary: dict) -> dict[str, str]:
    return {step["name"]: step["state"] for step in summary["steps"]}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_gives_a_summary_that_fits_the_schema(run_dir, report, ending):
    getattr(runs, ending)(run_dir)
    summary, _ = report(state=ENDINGS[ending])
    jsonschema.validate(summary, SCHEMA)
    assert list(states(summary)) == list(STEPS)
    assert (summary["error"] is None) == (summary["status"] == "succeeded")


def test_an_empty_folder_still_gets_a_whole_report(run_dir, report):
    summary, page = report(state="FAILED", error="the image could not be pulled")
    jsonschema.validate(summary, SCHEMA)
    assert summary["run_id"] == run_dir.name
    assert summary["error"]["message"] == "the image could not be pulled"
    assert "The workflow failed" in page


def test_a_promotion_names_the_version_its_aliases_and_what_was_reused(run_dir, report):
    runs.promoted(run_dir)
    summary, page = report()
    assert (summary["status"], summary["verdict"]) == ("succeeded", "promote")
    assert summary["model"] == {"name": "complete-journey", "version": "7", "aliases": ["challenger", "champion"]}
    assert summary["data"] == {
        "name": "complete-journey",
        "sha256": runs.MANIFEST["data"]["sha256"],
        "events": 1_469_307,
        "users": 2_469,
        "items": 68_509,
        "snapshot_id": runs.MANIFEST["snapshot_id"],
    }
    assert states(summary)["retrieve_features"] == "reused"
    assert summary["metrics"]["challenger"]["ranking"]["auc"]["value"] == 0.8131
    assert "Version 7 is the new champion" in page


def test_keeping_the_champion_is_a_success_without_a_promotion(run_dir, report):
    runs.kept(run_dir)
    summary, page = report()
    assert (summary["status"], summary["verdict"], summary["error"]) == ("succeeded", "keep", None)
    assert states(summary)["promote_model"] == "skipped"
    assert summary["model"]["aliases"] == ["challenger"]
    assert "The champion stays" in page


def test_a_version_that_was_champion_already_keeps_that_alias(run_dir, report):
    runs.kept(run_dir)
    record = json.loads((run_dir / "steps/find_champion/record.json").read_text())
    runs.write(run_dir, "steps/find_champion/record.json", record | {"metrics": {"version": "7"}})
    summary, _ = report()
    assert summary["model"]["aliases"] == ["challenger", "champion"]


def test_a_failure_comes_first_with_the_steps_own_words_and_what_to_do(run_dir, report):
    runs.failed(run_dir)
    summary, page = report(state="FAILED", error="a long trace of the engine")
    assert summary["error"]["step"] == "validate_data"
    assert summary["error"]["type"] == "ValidationFailed"
    assert summary["error"]["message"].startswith("events.quantity: 3 of 1,469,307 rows are infinite")
    assert summary["error"]["remedy"].startswith("Read the failed checks")
    assert states(summary)["train_lrm"] == "skipped"
    places = [page.index(text) for text in ("validate_data failed", "What to do", '<section id="workflow"')]
    assert places == sorted(places)


def test_a_registry_that_is_named_wrongly_is_no_matter_of_another_run(run_dir, report):
    runs.failed(run_dir)
    path = "steps/validate_data/record.json"
    record = json.loads((run_dir / path).read_text())
    runs.write(run_dir, path, record | {"error": {"type": "RegistryError", "message": "registry 'foo' is neither"}})
    summary, _ = report(state="FAILED")
    assert summary["error"]["remedy"].startswith("Do what the message says about the registry or its address")


def test_a_failed_record_fails_the_run_whatever_the_engine_says(run_dir, report):
    runs.failed(run_dir)
    summary, _ = report(state="SUCCEEDED")
    assert summary["status"] == "failed"


def test_a_killed_step_is_interrupted_and_its_half_written_file_is_named(run_dir, report):
    runs.killed(run_dir)
    summary, page = report(state="CANCELLED")
    assert states(summary)["train_lrm"] == "interrupted"
    assert summary["error"]["remedy"] == "Run the same command again: finished steps are reused."
    assert "steps/train_lrm/curves.json is not JSON" in page


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("evaluate_model", "The version in service has not changed."),
        ("promote_model", "is not known from here: look at the registry."),
        ("roll_out", "had already moved to the new version."),
    ],
)
def test_a_failure_says_what_it_did_to_the_version_in_service(run_dir, report, step, told):
    runs.promoted(run_dir)
    for later in list(runs.TIMES)[list(runs.TIMES).index(step) + 1 :]:
        (run_dir / "steps" / later / "record.json").unlink()
    runs.write_record(run_dir, step, state="failed", error={"type": "RegistryError", "message": "locked"})
    _, page = report(state="FAILED")
    assert told in page


def test_ctrl_c_counts_as_an_interruption(run_dir, report):
    runs.write_record(run_dir, "train_lrm", state="failed", error={"type": "KeyboardInterrupt", "message": ""})
    summary, _ = report(state="CANCELLED")
    assert states(summary)["train_lrm"] == "interrupted"
    assert "never ended" in summary["error"]["message"]


def test_a_step_that_failed_before_its_first_record_is_blamed_with_the_engines_words(run_dir, report):
    runs.write_record(run_dir, "find_champion")
    summary, _ = report(state="FAILED", error="No module named 'duckdb'", failed_step="retrieve_features")
    assert states(summary)["retrieve_features"] == "failed"
    assert summary["error"]["step"] == "retrieve_features"
    assert summary["error"]["message"] == "No module named 'duckdb'"


def test_a_run_whose_promotion_never_ran_has_failed_although_the_engine_ended_well(run_dir, report):
    runs.kept(run_dir)
    runs.write(run_dir, runs.EVALUATION_FILE, runs.EVALUATION)
    summary, _ = report(state="SUCCEEDED")
    assert summary["status"] == "failed"
    assert summary["error"]["message"] == "The engine ended well, but never ran promote_model."


LOCAL_STATES = ("SUCCEEDED", "FAILED")
"""What `kfp.local` passes to the exit step, and after them what a cluster does: ML Metadata's `Execution.State`."""
CLUSTER_STATES = ("COMPLETE", "CACHED", "RUNNING", "NEW", "UNKNOWN", "FAILED", "CANCELED")


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE", "CACHED", "RUNNING", "NEW", "UNKNOWN"])
@pytest.mark.parametrize("ending", ["promoted", "kept"])
def test_a_run_whose_steps_all_ended_well_succeeded_unless_the_engine_says_that_it_failed(
    run_dir, report, ending, state
):
    getattr(runs, ending)(run_dir)
    summary, page = report(state=state)
    assert (summary["status"], summary["error"]) == ("succeeded", None)
    assert "The workflow failed" not in page


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "CANCELLED"])
def test_a_run_that_the_engine_calls_failed_has_failed_although_its_steps_know_nothing_of_it(run_dir, report, state):
    runs.promoted(run_dir)
    summary, _ = report(state=state)
    assert summary["status"] == "failed"
    assert f"ended in the state {state}" in summary["error"]["message"]


@pytest.mark.parametrize("state", [*LOCAL_STATES, *CLUSTER_STATES])
@pytest.mark.parametrize(("ending", "step"), [("failed", "validate_data"), ("killed", "train_lrm")])
def test_a_broken_step_fails_the_run_in_every_state(run_dir, report, ending, step, state):
    getattr(runs, ending)(run_dir)
    summary, _ = report(state=state)
    assert (summary["status"], summary["error"]["step"]) == ("failed", step)


def test_a_step_without_a_record_fails_a_run_of_which_the_engine_knows_no_end(run_dir, report):
    runs.write_record(run_dir, "find_champion")
    summary, _ = report(state="RUNNING")
    assert (summary["status"], summary["error"]["step"]) == ("failed", "retrieve_features")
    assert summary["error"]["message"].startswith("The engine says no more than RUNNING, and retrieve_features, ")


def test_numbers_that_are_not_finite_become_null_and_a_dash(run_dir, report):
    runs.promoted(run_dir)
    broken = json.loads(json.dumps(runs.EVALUATION))
    broken["models"]["trees"]["ranking"]["auc"] |= {"value": float("nan"), "low": float("inf")}
    broken["comparisons"][1] |= {"difference": float("nan"), "low": float("nan"), "high": float("nan")}
    runs.write(run_dir, runs.EVALUATION_FILE, broken)
    summary, page = report()
    jsonschema.validate(summary, SCHEMA)
    assert summary["metrics"]["trees"]["ranking"]["auc"]["value"] is None
    assert "nan" not in page.lower().replace("banana", "")


def test_latest_names_the_newest_report(run_dir, report):
    report()
    other = run_dir.with_name("8")
    other.mkdir()
    report_run(other)
    latest = run_dir.parent / "latest"
    assert latest.is_symlink()
    assert latest.resolve() == other.resolve()


def test_reporting_again_replaces_the_report(run_dir, report):
    runs.failed(run_dir)
    report(state="FAILED")
    runs.promoted(run_dir)
    summary, page = report()
    assert summary["status"] == "succeeded"
    assert "validate_data failed" not in page
    assert not list(run_dir.glob(".*partial"))


def test_the_door_returns_the_outcome_as_metrics(run_dir):
    runs.failed(run_dir)
    assert report_run(run_dir, state="FAILED") == {"status": "failed", "verdict": "", "n_steps_failed": 1}


def test_the_staging_check_is_on_the_page_and_in_the_summary(run_dir, report):
    runs.promoted(run_dir)
    summary, page = report()
    assert (summary["staging"]["n_users"], summary["staging"]["n_skewed"]) == (100, 3)
    for text in ("41.2 and 75.2 ms (champion 39.8 and 71.9 ms)", "6.8 MB"):
        assert text in page
    assert "421 of 8,420 (5.0%): promotions 412, weeks_since_bought 9" in page
    line = next(line for line in summary_text(summary).splitlines() if line.startswith("Staging check: "))
    assert "3 differences beyond the tolerance; median answer 41 ms (champion 40)" in line


def test_a_model_that_could_not_be_served_is_said(run_dir, report):
    runs.promoted(run_dir)
    nothing = dict.fromkeys(runs.STAGING) | {"n_users": 0, "n_requests": 0, "n_skewed": 0, "skew": [], "expired": {}}
    runs.write(run_dir, "steps/check_in_staging/staging.json", nothing | {"fault": "the server ended with status 1"})
    summary, page = report()
    jsonschema.validate(summary, SCHEMA)
    assert "the server ended with status 1" in page
    assert "Staging check: the model could not be served" in summary_text(summary)
