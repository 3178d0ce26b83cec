"""A real server of a real release, asked over HTTP."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.serving.shop import AS_OF


def ask(address, route, **body):
    """Status and body of one answer."""
    content = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{address}{route}", content, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_user_gets_the_k_best_items_with_their_titles(address):
    status, answer = ask(address, "/v1/recommend", user_id=1, k=5)
    assert status == 200
    assert (answer["user_id"], answer["model"], answer["cold"]) == (1, {"name": "shop", "version": "1"}, False)
    scores = [item["score"] for item in answer["items"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert all(item["title"] == f"item {item['item_id']}" for item in answer["items"])


def test_old_data_is_a_replayed_world(address):
    _, answer = ask(address, "/v1/recommend", user_id=1)
    assert answer["time"] == answer["as_of"] == AS_OF.isoformat()


def test_an_unknown_user_is_answered_and_flagged(address):
    status, answer = ask(address, "/v1/recommend", user_id=999, k=3)
    assert (status, answer["cold"], len(answer["items"])) == (200, True, 3)


def test_candidates_come_back_with_probabilities_the_likeliest_first(address):
    _, answer = ask(
        address, "/v1/rank", user_id=1, candidates=[100, 105, {"item_id": 103, "shelf": 2.0}], context={"store_id": 1}
    )
    found = [item["probability"] for item in answer["items"]]
    assert {item["item_id"] for item in answer["items"]} == {100, 103, 105}
    assert found == sorted(found, reverse=True)
    assert all(0 < probability < 1 for probability in found)


def test_an_unknown_item_is_named_and_the_others_are_answered(address):
    for route in ("/v1/rank", "/v1/recommend"):
        status, answer = ask(address, route, user_id=1, candidates=[100, 7])
        assert (status, answer["unknown_items"]) == (200, [7])
        assert [item["item_id"] for item in answer["items"]] == [100]


def test_seen_items_are_left_out_on_demand(address):
    _, everything = ask(address, "/v1/recommend", user_id=1, k=1000)
    _, unseen = ask(address, "/v1/recommend", user_id=1, k=1000, exclude_seen=True)
    assert len(everything["items"]) == 12
    assert unseen["items"] == []  # in sixteen days the user has bought all twelve


def test_what_a_request_brings_changes_the_answer(address):
    answers = [
        ask(address, "/v1/rank", user_id=1, candidates=[100], context=context)[1]["items"][0]["probability"]
        for context in ({}, {"device": "phone"}, {"hour": 23}, {"store_id": 0})
    ]
    assert len(set(answers)) == 4


def test_a_value_that_expires_changes_the_answer_and_one_that_does_not_leaves_it(address):
    def at(days):
        body = {"user_id": 999, "candidates": [102], "time": (AS_OF + timedelta(days=days)).isoformat()}
        return ask(address, "/v1/rank", **body)[1]["items"][0]["probability"]

    assert at(1) == at(0)
    assert at(3) != at(0)  # the popularity of item 102 lives two days


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"user_id": "one"}, "user_id: must be a whole number, got 'one'"),
        ({"user_id": True}, "user_id"),
        ({"user_id": 2**80}, "user_id: must be a whole number"),
        ({"k": 5}, "user_id: Field required"),
        ({"user_id": 1, "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"user_id": 1, "time": "2024-05-01T00:00:00"}, "time: Input should have timezone info"),
        ({"user_id": 1, "time": "2023-05-01T00:00:00Z"}, "time: 2023-05-01T00:00:00+00:00 lies before"),
        ({"user_id": 1, "limit": 5}, "limit: Extra inputs are not permitted"),
        (
            {"user_id": 1, "context": {"hours": 5}},
            "context: 'hours' is not known; the fields are: store_id, hour, device",
        ),
        ({"user_id": 1, "context": {"hour": "noon"}}, "context.hour: must be a finite number, got 'noon'"),
        ({"user_id": 1, "context": {"store_id": "a"}}, "context.store_id: must be a whole number"),
        ({"user_id": 1, "candidates": [{"shelf": 1}]}, 'candidates[0]: has no "item_id"'),
        ({"user_id": 1, "candidates": ["a"]}, "candidates[0].item_id: must be a whole number, got 'a'"),
        ({"user_id": 1, "candidates": [{"item_id": 100, "price": 1}]}, "candidates[0]: 'price' is not known"),
    ],
)
def test_bad_input_is_named_and_refused(address, body, message):
    status, answer = ask(address, "/v1/recommend", **body)
    assert (status, message in answer["detail"]) == (422, True), answer


def test_a_body_that_is_no_json_is_refused(address):
    request = urllib.request.Request(f"{address}/v1/recommend", b"{,}", {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value as error:
        assert (error.code, "the body is not JSON: character 1" in error.read().decode()) == (422, True)


def test_ranking_needs_candidates(address):
    assert ask(address, "/v1/rank", user_id=1)[0] == 422


def test_many_at_once_get_the_answers_they_get_alone(address):
    alone = [ask(address, "/v1/recommend", user_id=user)[1]["items"] for user in range(1, 11)]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda user: ask(address, "/v1/recommend", user_id=user)[1]["items"], range(1, 11)))
    for one, other in zip(alone, together, strict=True):
        assert [item["item_id"] for item in one] == [item["item_id"] for item in other]
        assert [item["score"] for item in one] == pytest.approx([item["score"] for item in other], abs=1e-5)


def test_an_operator_sees_health_the_model_and_the_counts(address):
    assert ask(address, "/healthz") == (200, {"status": "alive"})
    assert ask(address, "/readyz") == (200, {"status": "ready"})
    _, model = ask(address, "/v1/model")
    assert (model["n_items"], model["context"]) == (12, {"hour": "dense", "device": "sparse"})
    ask(address, "/v1/recommend", user_id=1)
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as response:
        text = response.read().decode()
    assert 'lrm_requests_total{route="/v1/recommend",status="200"}' in text
    assert "lrm_ready 1.0" in text
