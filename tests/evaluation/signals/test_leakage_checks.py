"""Each check finds what was planted, and nothing in an honest world."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from lrm.evaluation.signals import leakage_checks
from lrm.features.tables import read_manifest
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from tests.worlds import SIGNALS

DATA = {
    "data": {"name": "shop", "protocol": "temporal"},
    "snapshot_id": "a" * 64,
    "as_of": "2024-03-01T00:00:00+00:00",
    "test_from": "2024-02-01T00:00:00+00:00",
}


@pytest.fixture(scope="module")
def manifest(examples):
    return read_manifest(examples)


@pytest.fixture(scope="module")
def corpus(tables):
    return encode_corpus(tables, SIGNALS, fit_vocabulary(tables, SIGNALS, preset("tiny").tokens))


def test_an_honest_world_has_no_findings(tables, manifest, corpus):
    assert leakage_checks.rows_across_the_cut(tables, manifest) == []
    assert leakage_checks.visible_targets(tables, corpus) == []
    assert leakage_checks.late_signals(manifest | {"late": [late("age", 0)]}) == []


def late(signal, n_late):
    return {"signal": signal, "view": "profile", "n_checked": 500, "n_late": n_late, "example": "user_id=1 at noon"}


def test_a_signal_from_after_the_cutoff_is_named():
    (said,) = leakage_checks.late_signals({"late": [late("age", 3), late("hour", 0)]})
    assert said.startswith("Signal 'age' has a timestamp after the cutoff: 3 of 500 checked values of profile")


def test_a_history_that_reaches_the_request_is_found(tables, corpus):
    (said,) = leakage_checks.visible_targets(tables, replace(corpus, visible_R=corpus.visible_R + 1))
    assert said.startswith("The history of 180 test requests reaches to or beyond the request")


def test_a_target_that_happened_only_before_the_request_is_found_with_its_user(tables, corpus):
    moved = tables.requests.with_columns(pl.col("event_time") + pl.lit(timedelta(days=1)))
    (said,) = leakage_checks.visible_targets(tables._replace(requests=moved), corpus)
    assert "targets of test requests are visible in the history and happen at no later time" in said
    assert "of user 1 at request" in said


def test_a_training_row_in_the_test_window_is_found(tables, manifest):
    requests = tables.requests.with_columns(split=pl.lit("train"))
    (said,) = leakage_checks.rows_across_the_cut(tables._replace(requests=requests), manifest)
    assert said == "360 train rows of requests lie outside the train window, so the cut leaks."


@pytest.mark.parametrize(
    ("model", "changed", "expected"),
    [
        ("challenger", {}, []),
        ("champion", {"snapshot_id": "b" * 64}, []),
        ("champion", {"as_of": "2024-02-01T00:00:00+00:00", "test_from": "2024-01-01T00:00:00+00:00"}, []),
        ("champion", {"test_from": None}, ["the champion does not say its test_from, so it may have learned"]),
        ("champion", {"data": DATA["data"] | {"protocol": "x"}}, ["the champion was made with the protocol 'x'"]),
        ("challenger", {"snapshot_id": "b" * 64}, ["the challenger was made from snapshot bbbbbbbbbbbb, and"]),
        ("champion", {"data": DATA["data"] | {"name": "other"}}, ["the champion was made from the data 'other'"]),
        ("champion", {"as_of": "2024-03-02T00:00:00+00:00"}, ["the champion was made from later data (as_of 2024-"]),
        ("champion", {"test_from": "2024-02-02T00:00:00+00:00"}, ["the champion was made from later data (test_from"]),
    ],
)  # fmt: skip
def test_a_model_must_fit_the_data_that_it_is_judged_on(model, changed, expected):
    found = leakage_checks.data_faults(DATA, {model: DATA | changed}, challenger="challenger")
    assert [said[: len(start)] for said, start in zip(found, expected, strict=True)] == expected


def test_content_of_items_that_was_read_after_a_held_out_event_is_a_leak(tables):
    held_out = tables.events.filter(pl.col("split") != "train")["event_time"].min()
    assert leakage_checks.late_content(tables, {"content_at": held_out.isoformat()}) == []
    late = (held_out + timedelta(microseconds=1)).isoformat()
    (said,) = leakage_checks.late_content(tables, {"content_at": late})
    assert said.startswith(f"The content of items is that known at {late}, after the first held-out event")
    only_trained = tables._replace(events=tables.events.filter(split="train"))
    assert leakage_checks.late_content(only_trained, {"content_at": late}) == []
