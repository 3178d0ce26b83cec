"""What the steps found odd and did not stop for reaches the summary, the report's top and the terminal."""

import json

import jsonschema
import pytest

from lrm.reporting.summary import N_WARNINGS, summary_text
from tests.reporting import runs
from tests.reporting.test_run import SCHEMA

VALIDATION, STAGING = "steps/validate_data/validation.json", "steps/check_in_staging/staging.json"


def test_every_kind_of_warning_says_its_step_what_was_seen_and_the_bar(run_dir, report):
    runs.promoted(run_dir)
    runs.write(run_dir, STAGING, runs.STAGING | {"expired": {"promotions": 842, "income": 842}})
    summary, page = report()
    jsonschema.validate(summary, SCHEMA)
    found = {(one["step"], one["kind"], one["value"], one["bar"]): one["what"] for one in summary["warnings"]}
    assert found == {
        ("validate_data", "expectation", "67.1 % null", "at most 66.0 %"): "requests.income: null rate: 67.1 % null, "
        "expected at most 66.0 %.",
        ("validate_data", "expectation", "2 of 1,469,307 rows", "0 to 80,000"): "events.quantity: in range: "
        "2 of 1,469,307 rows, expected 0 to 80,000.",
        ("validate_data", "drift", 0.171, 0.134): "requests.store_id has drifted from what the champion was trained on "
        "(Jensen-Shannon distance 0.171, above 0.134).",
        ("check_in_staging", "expired", 0.2, 0.1): "20% of the values known online have expired, so null: "
        "promotions 842, income 842.",
        ("evaluate_model", "leak", None, None): runs.FEATURES["warnings"][0],
    }
    top, printed = page[: page.index('<section id="workflow"')], summary_text(summary)
    for what in found.values():
        assert what.replace("'", "&#39;") in top
        assert f"  - {what}" in printed


@pytest.mark.parametrize(("n_expired", "is_told"), [(841, False), (843, True)])
def test_expired_values_are_a_warning_beyond_a_tenth_of_those_known(run_dir, report, n_expired, is_told):
    runs.promoted(run_dir)
    runs.write(run_dir, STAGING, runs.STAGING | {"expired": {"promotions": n_expired}})
    summary, _ = report()
    assert any(one["kind"] == "expired" for one in summary["warnings"]) == is_told


def test_a_failed_run_keeps_the_warnings_that_came_before_and_its_error_is_none_of_them(run_dir, report):
    runs.failed(run_dir)
    summary, _ = report(state="FAILED")
    assert {one["kind"] for one in summary["warnings"]} == {"drift"}
    assert summary["error"]["step"] == "validate_data"


def test_many_warnings_are_counted_on_the_terminal_and_folded_on_the_page(run_dir, report):
    runs.promoted(run_dir)
    found = json.loads(json.dumps(runs.VALIDATION))
    found["drift"] = [found["drift"][0] | {"signal": f"signal_{i}"} for i in range(30)]
    runs.write(run_dir, VALIDATION, found)
    summary, page = report()
    assert len(summary["warnings"]) == 33
    assert f"  - and {33 - N_WARNINGS} more, in the report" in summary_text(summary)
    assert "<summary>All 33 warnings</summary>" in page


def test_a_check_of_a_whole_table_names_the_table_alone(run_dir, report):
    runs.promoted(run_dir)
    check = {"name": "volume as before", "table": "events", "column": "", "severity": "warning", "success": False}
    runs.write(run_dir, VALIDATION, {"checks": [check | {"observed": "12 rows", "expected": "90 to 110 rows"}]})
    summary, _ = report()
    assert summary["warnings"][0]["what"] == "events: volume as before: 12 rows, expected 90 to 110 rows."
