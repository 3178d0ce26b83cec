import json
import math

import pytest

from lrm.errors import DataError
from lrm.evaluation.staging_results import as_json, read

TOLD = {
    "n_users": 20,
    "n_requests": 40,
    "tolerance": 1e-4,
    "max_score_difference": 1e-6,
    "max_probability_difference": 1e-7,
    "skew": [],
    "n_skewed": 0,
    "expired": {"price": 2, "affinity": 1},
    "latency_p50_ms": 12.0,
    "latency_p99_ms": 30.0,
    "champion_latency_p50_ms": None,
    "champion_latency_p99_ms": None,
    "bundle_bytes": 4_000_000,
    "champion_bundle_bytes": None,
    "start_seconds": 3.1,
}


MEASURED = (
    "max_score_difference",
    "max_probability_difference",
    "latency_p50_ms",
    "latency_p99_ms",
    "start_seconds",
)
UNSERVED = {"n_users": 0, "n_requests": 0, "expired": {}, "fault": "the server did not start"} | dict.fromkeys(MEASURED)
"""What changes where the model could not be served: nothing was asked, so nothing was measured."""


def write_staging_results(folder, **changed):
    """The folder that the step check_in_staging leaves."""
    (folder / "staging.json").write_text(json.dumps(TOLD | changed))
    return folder


def test_a_staging_check_is_read_as_its_step_wrote_it(tmp_path):
    found = read(write_staging_results(tmp_path))
    assert (found.n_requests, found.tolerance, found.n_expired) == (40, 1e-4, 3)
    assert found.champion_latency_p50_ms is None


def test_a_number_that_was_not_measured_stays_null_in_what_is_written(tmp_path):
    written = as_json(read(write_staging_results(tmp_path, **UNSERVED)))
    assert {name for name, value in written.items() if value is None} == {
        *(name for name in MEASURED if name != "start_seconds"),
        "champion_latency_p50_ms",
        "champion_latency_p99_ms",
        "champion_bundle_bytes",
    }
    assert json.loads(json.dumps(written, allow_nan=False))["fault"] == "the server did not start"
    assert as_json(None) is None


def test_why_the_champion_could_not_be_checked_in_staging_is_read(tmp_path):
    assert read(write_staging_results(tmp_path, champion_fault="it did not start")).champion_fault == "it did not start"


def test_the_signals_of_the_differences_are_named_the_most_frequent_first(tmp_path):
    skew = [{"signals": ["b"]}, {"signals": ["a", "b"]}, {"signals": ["c"]}]
    assert read(write_staging_results(tmp_path, skew=skew, n_skewed=3)).skewed_signals == ("b", "a", "c")


def test_no_staging_check_is_none_and_one_without_requests_has_no_numbers(tmp_path):
    assert read(None) is None
    found = read(write_staging_results(tmp_path, n_requests=0, latency_p50_ms=None))
    assert math.isnan(found.latency_p50_ms)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"staging\.json is missing; the step check_in_staging writes it"),
        ("{", r"staging\.json is not JSON"),
        (json.dumps(TOLD | {"n_skewed": "many"}), "n_skewed must be a number, got 'many'"),
        (json.dumps({}), "n_users must be a number, got None"),
    ],
)
def test_a_staging_check_that_cannot_be_read_is_an_error(content, message, tmp_path):
    if content is not None:
        (tmp_path / "staging.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)
