"""What can be wrong with a request, without a server."""

import sys
from datetime import UTC, datetime, timedelta

import pytest

from lrm.schema import Signal
from lrm.serving.engine.request_checks import (
    RECOMMEND,
    SCORE,
    Event,
    Fields,
    PredictRequest,
    event_problem,
    normalise_event,
    normalise_request,
    problem,
)

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)
FIELDS = Fields(
    {"user_id": "string", "item_id": "string", "store_id": "int64"},
    (
        Signal(name="hour", kind="dense", makers=("query",), entity="request", view="requests"),
        Signal(name="mood", kind="bag", makers=("query",), entity="request", view="requests"),
        Signal(name="taste", kind="embedding", makers=("query",), entity="request", view="requests", dim=2),
    ),
    (Signal(name="shelf", kind="sparse", makers=("candidate",), entity="pair", view="candidates"),),
    AS_OF,
)
DAYS, AISLES = tuple("1234567"), tuple("123456789")
LIMITED = Fields(
    {"user_id": "string", "item_id": "string"},
    (
        Signal(name="share", kind="dense", makers=("query",), entity="request", view="r", minimum=0.1, maximum=0.7),
        Signal(name="weekday", kind="sparse", makers=("query",), entity="request", view="r", categories=DAYS),
        Signal(name="days", kind="bag", makers=("query",), entity="request", view="r", categories=DAYS),
        Signal(name="town", kind="sparse", makers=("query",), entity="request", view="r"),
        Signal(name="aisle", kind="sparse", makers=("query",), entity="request", view="r", categories=AISLES),
    ),
    (Signal(name="price", kind="dense", makers=("candidate",), entity="pair", view="c", minimum=0),),
    AS_OF,
    (Signal(name="paid", kind="dense", makers=("history",), entity="pair", view="e", maximum=1e6),),
)


def asked(kind=RECOMMEND, *, user_id="ann", time=AS_OF, context=None, candidates=None, exclude=(), fields=FIELDS):
    return problem(PredictRequest(kind, user_id, time, context or {}, candidates, exclude=exclude), fields, now=AS_OF)


def test_a_good_question_has_no_problem():
    context = {"store_id": 3, "hour": 5, "mood": ["calm"], "taste": [0.5, 1]}
    assert asked(SCORE, context=context, candidates=({"item_id": "tea", "shelf": "top"},)) == ""


def test_a_deep_value_is_refused_and_only_its_beginning_shown():
    deep: list[object] = []
    for _ in range(sys.getrecursionlimit()):
        deep = [deep]
    assert "context.hour: must be a finite number within 3.4e+38, got [[[[" in asked(context={"hour": deep})


def test_an_absent_value_is_no_problem():
    assert asked(context={"hour": None, "mood": None}) == ""


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"user_id": 1}, "user_id: must be a string of at most 1,000 characters, got 1"),
        ({"time": AS_OF - timedelta(seconds=1)}, "the answer would know the future"),
        ({"context": {"store_id": True}}, "context.store_id: must be a whole number of 64 bits, got True"),
        ({"context": {"hour": float("nan")}}, "context.hour: must be a finite number within 3.4e+38, got nan"),
        ({"time": AS_OF + timedelta(days=400)}, "time: 2025-02-04T00:00:00+00:00 lies too far ahead"),
        ({"context": {"hour": 1e39}}, "context.hour: must be a finite number within 3.4e+38, got 1e+39"),
        ({"context": {"hour": 10**400}}, "context.hour: must be a finite number within 3.4e+38, got 1000"),
        (
            {"context": {"mood": "calm"}},
            "context.mood: must be a list of at most 1,000 members, each a string of at most 1,000",
        ),
        ({"context": {"mood": ["a"] * 1001}}, "context.mood: must be a list of at most 1,000 members"),
        ({"user_id": "\ud800"}, "user_id: must be a string of at most 1,000 characters, got '\\ud800'"),
        ({"user_id": "a" * 1001}, "user_id: must be a string of at most 1,000 characters, got 'aaa"),
        ({"exclude": (1,)}, "exclude[0]: must be a string of at most 1,000 characters, got 1"),
        ({"context": {"taste": [1.0]}}, "context.taste: must be a list of 2, each a finite number"),
        (
            {"candidates": ({"item_id": "tea", "shelf": 3},)},
            "candidates[0].shelf: must be a string of at most 1,000 characters, got 3",
        ),
    ],
)
def test_what_is_wrong_is_named(sent, message):
    assert message in asked(**sent)


def test_what_is_declared_to_the_last_bit_or_left_open_is_within_its_limits():
    context = {"share": 0.1, "weekday": "7", "days": [], "town": "one never seen", "aisle": None}
    assert asked(context=context, candidates=({"item_id": "tea", "price": 0},), fields=LIMITED) == ""
    assert asked(context={"share": 0.7, "days": ["1", "7"]}, fields=LIMITED) == ""


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (
            {"context": {"share": -3}},
            "context.share: -3 is out of its declared range, 0.1 to 0.7",
        ),
        ({"context": {"share": 10**38}}, "is out of its declared range"),
        (
            {"context": {"weekday": "99"}},
            "context.weekday: '99' is no declared category; send one of: 1, 2, 3, 4, 5, 6, 7",
        ),
        ({"context": {"days": ["1", "mon"]}}, "context.days: 'mon' is no declared category"),
        ({"context": {"aisle": "x"}}, "7, 8 and 1 more"),
        (
            {"candidates": ({"item_id": "tea", "price": -0.5},)},
            "candidates[0].price: -0.5 is out of its declared range, at least 0",
        ),
    ],
)
def test_a_value_beyond_its_declared_limits_is_named_with_them(sent, message):
    assert message in asked(**sent, fields=LIMITED)


def test_an_event_beyond_its_declared_limits_is_named_with_them():
    said = event_problem(Event("ann", "tea", None, {"paid": 2e6}), LIMITED, where="events[3]", now=AS_OF)
    assert said == "events[3].signals.paid: 2000000.0 is out of its declared range, at most 1000000"


def test_booleans_and_whole_numbers_are_taken_as_training_reads_columns_of_them():
    context = {"store_id": 3, "hour": True, "mood": [True, 2, "calm"], "other": True}
    request = PredictRequest(SCORE, "ann", None, context, ({"item_id": "tea", "shelf": False}, {"item_id": "cocoa"}))
    stored = normalise_request(request, FIELDS)
    assert stored.context == {"store_id": 3, "hour": 1.0, "mood": ["true", "2", "calm"], "other": True}
    assert stored.candidates == ({"item_id": "tea", "shelf": "false"}, {"item_id": "cocoa"})
    assert normalise_event(Event("ann", "tea", None, {"paid": True}), LIMITED).signals == {"paid": 1.0}
