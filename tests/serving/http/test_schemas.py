"""A wrong body costs no more than its first mistake, and is told in a few words."""

import json
import urllib.error
import urllib.request

import pytest
from pydantic import ValidationError

from lrm.serving.engine import answer
from lrm.serving.engine.request_checks import SHOWN, shown
from lrm.serving.http import schemas

MANY = {f"k{i}": 1 for i in range(80_000)}
RECOMMEND, SCORE, EVENTS = (
    ("/v1/recommend", schemas.RecommendBody),
    ("/v1/score", schemas.ScoreBody),
    ("/v1/events", schemas.EventsBody),
)
EVENT = {"user_id": 1, "item_id": 100}
FORMS_OF_AN_ID = 3
"""A candidate is a number, a text or an object: what is none of them is told so for each."""


@pytest.mark.parametrize(
    ("to", "body", "n_mistakes"),
    [
        (RECOMMEND, {"user_id": 1} | MANY, 1),
        (RECOMMEND, MANY | {"user_id": 1}, 1),
        (RECOMMEND, MANY, 2),  # and the user is missing
        (RECOMMEND, {"user_id": 1, "context": MANY}, 1),
        (RECOMMEND, {"user_id": 1, "candidates": [MANY]}, FORMS_OF_AN_ID),
        (RECOMMEND, {"user_id": 1, "candidates": [None] * 2000}, FORMS_OF_AN_ID),
        (RECOMMEND, {"user_id": 1, "candidates": [1] * 200_000}, 1),
        (RECOMMEND, {"user_id": 1, "exclude": [1.5] * 2000}, 2),
        (RECOMMEND, {"user_id": 1, "exclude": [[]] * 200_000}, 2),
        (SCORE, {"user_id": 1, "candidates": [[[]]] * 2000}, FORMS_OF_AN_ID),
        (SCORE, {"user_id": MANY, "candidates": [1]}, 2),
        (EVENTS, {"events": [{}] * 100}, 2),
        (EVENTS, {"events": [EVENT] * 20_000}, 1),
        (EVENTS, {"events": [EVENT | dict(list(MANY.items())[:800])] * 90}, 1),
        (EVENTS, {"events": [EVENT | {"signals": MANY}]}, 1),
        (EVENTS, {"events": "x" * 1_000_000}, 1),
    ],
)
def test_a_body_fails_at_its_first_mistake_and_is_told_shortly(address, to, body, n_mistakes):
    path, model = to
    with pytest.raises(ValidationError) as told:
        model.model_validate(body)
    assert told.value.error_count() <= n_mistakes
    status, detail = answered(address, path, json.dumps(body).encode())
    assert (status, len(detail) < 500) == (422, True), detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id": 1, ' + b'"k": 5, ' * 100_000 + b'"k": 3}',
        b'{"user_id": 1, "k": 3, "exclude": [' + b"1, " * 1999 + b"1]}",
    ],
    ids=["one key again and again", "one item again and again"],
)
def test_what_is_said_again_is_no_mistake(address, body):
    status, _ = answered(address, "/v1/recommend", body)
    assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id": 1, "context": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"user_id": 1, "context": {"hour": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
        b'{"user_id": 1, "context": {"hour": ' + b"9" * 4300 + b"}}",
        b'{"user_id": ' + b"9" * 1_000_000 + b"}",
        b'{"user_id": 1, "context": {"device": "' + "\u00e9".encode() * 400_000 + b'"}}',
        b'{"user_id": 1, "' + "\u00e9".encode() * 400_000 + b'": 1}',
        b'{"user_id": 1, "\\ud800": 1}',
        b'{"user_id": 1, "context": {"\\ud800": 1}}',
    ],
    ids=["deep", "deep lists", "digits", "more digits", "long", "long name", "half a name", "half a name inside"],
)
def test_a_body_of_odd_form_is_refused_shortly(address, body):
    status, detail = answered(address, "/v1/recommend", body)
    assert (status in (400, 422), len(detail) < 500) == (True, True), detail


def answered(address, path, body):
    """Status and text of the answer."""
    request = urllib.request.Request(f"{address}{path}", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Watched(list):
    """A list that counts how many of its members are looked at."""

    n_looked = 0

    def __iter__(self):
        for one in super().__iter__():
            self.n_looked += 1
            yield one


@pytest.mark.parametrize(
    "value", [None, 1, -2.5, "a'b", [], {}, [1, "x"], {"a": [1, {"b": None}]}, True, "x" * (SHOWN - 2)]
)
def test_a_short_value_is_shown_as_python_writes_it(value):
    assert shown(value) == repr(value)


def test_only_the_beginning_of_a_long_value_is_looked_at():
    value = Watched(range(1000))
    assert shown(value) == repr(list(range(1000)))[:SHOWN] + "..."
    assert value.n_looked < SHOWN


@pytest.mark.parametrize(
    ("schema", "written"),
    [(schemas.Answer, answer.Answer), (schemas.Flags, answer.Flags), (schemas.Item, answer.AnswerItem)],
)
def test_the_document_describes_the_keys_of_an_answer(schema, written):
    assert set(schema.model_fields) == set(written.__annotations__)
