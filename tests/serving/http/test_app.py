"""A real server of a real release, asked over HTTP."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.serving.conftest import ask
from tests.serving.shop import AS_OF


def test_a_user_gets_the_k_best_items_with_their_titles(address):
    status, answer = ask(address, "/v1/recommend", user_id=1, k=5)
    assert status == 200
    assert (answer["user_id"], answer["model"], answer["flags"]["empty_history"]) == (
        1,
        {"name": "shop", "version": "1"},
        False,
    )
    scores = [item["score"] for item in answer["items"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert all(item["title"] == f"item {item['item_id']}" for item in answer["items"])


def test_old_data_is_a_replayed_world(address):
    _, answer = ask(address, "/v1/recommend", user_id=1)
    assert answer["time"] == answer["as_of"] == AS_OF.isoformat()


def test_an_unknown_user_is_answered_and_flagged(address):
    status, answer = ask(address, "/v1/recommend", user_id=999, k=3)
    assert (status, len(answer["items"])) == (200, 3)
    assert (answer["flags"]["unknown_user"], answer["flags"]["empty_history"]) == (True, True)


def test_candidates_come_back_with_probabilities_the_likeliest_first(address):
    _, answer = ask(
        address, "/v1/score", user_id=1, candidates=[100, 105, {"item_id": 103, "shelf": 2.0}], context={"store_id": 1}
    )
    found = [item["probability"] for item in answer["items"]]
    assert {item["item_id"] for item in answer["items"]} == {100, 103, 105}
    assert found == sorted(found, reverse=True)
    assert all(0 < probability < 1 for probability in found)


def test_an_unknown_item_is_named_and_the_others_are_answered(address):
    for route in ("/v1/score", "/v1/recommend"):
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
        ask(address, "/v1/score", user_id=1, candidates=[100], context=context)[1]["items"][0]["probability"]
        for context in ({}, {"device": "phone"}, {"hour": 23}, {"store_id": 0})
    ]
    assert len(set(answers)) == 4


def test_a_value_that_expires_changes_the_answer_and_one_that_does_not_leaves_it(address):
    def at(days):
        body = {"user_id": 999, "candidates": [102], "time": (AS_OF + timedelta(days=days)).isoformat()}
        return ask(address, "/v1/score", **body)[1]["items"][0]["probability"]

    assert at(1) == at(0)
    assert at(3) != at(0)  # the popularity of item 102 lives two days


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"user_id": "one"}, "user_id: must be a whole number of 64 bits, got 'one'"),
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
        (
            {"user_id": 1, "context": {"hour": "noon"}},
            "context.hour: must be a finite number within 3.4e+38, got 'noon'",
        ),
        ({"user_id": 1, "context": {"device": "tram"}}, "send one of: phone, laptop"),
        ({"user_id": 1, "context": {"store_id": "a"}}, "context.store_id: must be a whole number"),
        ({"user_id": 1, "candidates": [{"shelf": 1}]}, 'candidates[0]: has no "item_id"'),
        ({"user_id": 1, "candidates": ["a"]}, "candidates[0].item_id: must be a whole number of 64 bits, got 'a'"),
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


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b'{"user_id": 1}', "application/x-www-form-urlencoded", "only with the header content-type: application/json"),
        (b'{"user_id": 1}', "text/plain", "got 'text/plain'"),
        (b'{"user_id": 1}', "", "content-type: application/json"),
        (b"", "application/json", "the body is empty; send a JSON object"),
        (b"", "application/x-www-form-urlencoded", "the body is empty; send a JSON object"),
        (b"[1]", "application/json", "body: Input should be a valid dictionary"),
    ],
)
def test_a_body_that_is_not_sent_as_json_is_told_what_it_needs(address, body, content_type, message):
    for route in ("/v1/recommend", "/v1/score", "/v1/events"):
        request = urllib.request.Request(f"{address}{route}", body, {"content-type": content_type})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        with refused.value as error:
            assert (error.code, message in json.load(error)["detail"]) == (422, True)


def test_scoring_needs_candidates(address):
    assert ask(address, "/v1/score", user_id=1)[0] == 422
    assert ask(address, "/v1/score", user_id=1, candidates=[])[0] == 422


def test_many_at_once_get_the_answers_they_get_alone(address):
    alone = [ask(address, "/v1/recommend", user_id=user)[1]["items"] for user in range(1, 11)]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda user: ask(address, "/v1/recommend", user_id=user)[1]["items"], range(1, 11)))
    for one, other in zip(alone, together, strict=True):
        assert [item["item_id"] for item in one] == [item["item_id"] for item in other]
        assert [item["score"] for item in one] == pytest.approx([item["score"] for item in other], abs=1e-5)


def test_what_is_left_out_does_not_come_back_and_what_is_chosen_does(address):
    _, answer = ask(address, "/v1/recommend", user_id=1, k=1000, exclude=[100, 105, 999])
    assert {item["item_id"] for item in answer["items"]} == set(range(100, 112)) - {100, 105}
    _, answer = ask(address, "/v1/recommend", user_id=1, candidates=[100, 101, 102], exclude=[101])
    assert {item["item_id"] for item in answer["items"]} == {100, 102}


def test_what_was_not_known_is_flagged(address):
    _, answer = ask(address, "/v1/recommend", user_id=1, context={"hour": 5})
    nothing = {"unknown_user": False, "empty_history": False, "expired": [], "store_down": False, "damaged": False}
    assert answer["flags"] == nothing | {"missing": ["device"]}
    context = {"hour": 5, "device": "phone", "store_id": 1}
    later = (AS_OF + timedelta(days=3)).isoformat()
    body = {"user_id": 1, "candidates": [{"item_id": 102, "shelf": 1}], "context": context, "time": later}
    _, answer = ask(address, "/v1/score", **body)
    assert answer["flags"] == nothing | {"missing": [], "expired": ["popularity", "price"]}


def test_a_long_list_of_candidates_is_scored_as_each_alone(address):
    many = [100 + place % 12 for place in range(1200)]  # several passes
    _, together = ask(address, "/v1/score", user_id=1, candidates=many)
    _, few = ask(address, "/v1/score", user_id=1, candidates=many[:12])
    alone = {item["item_id"]: item["probability"] for item in few["items"]}
    assert len(together["items"]) == 1200
    for item in together["items"]:
        assert item["probability"] == pytest.approx(alone[item["item_id"]], abs=1e-5)


def test_a_list_or_a_body_that_is_too_long_is_refused(address):
    assert ask(address, "/v1/score", user_id=1, candidates=[100] * 2001)[0] == 422
    assert ask(address, "/v1/recommend", user_id=1, exclude=[100] * 2001)[0] == 422
    assert ask(address, "/v1/recommend", user_id=1, context={"hour": "9" * 2**20})[0] == 413


def test_every_answer_has_the_id_of_its_request(address):
    request = urllib.request.Request(f"{address}/v1/model", headers={"x-request-id": "mine-1"})
    with urllib.request.urlopen(request, timeout=5) as response:
        assert response.headers["x-request-id"] == "mine-1"


def test_an_operator_sees_health_the_model_and_the_counts(address):
    assert ask(address, "/healthz") == (200, {"status": "alive"})
    assert ask(address, "/readyz") == (200, {"status": "ready"})
    _, model = ask(address, "/v1/model")
    device = {"kind": "sparse", "categories": ["phone", "laptop"]}
    assert (model["n_items"], model["context"]) == (12, {"hour": {"kind": "dense"}, "device": device})
    assert (model["event_fields"], model["refused"]) == ({"spent": {"kind": "dense", "minimum": 0}}, None)
    assert (model["lineage"]["run_id"], len(model["lineage"]["content_sha256"])) == ("run-1", 64)
    ask(address, "/v1/recommend", user_id=999)
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as response:
        text = response.read().decode()
    assert 'lrm_http_requests_total{route="/v1/recommend",status="200"}' in text
    assert 'lrm_answers_flagged_total{flag="unknown_user"}' in text
    assert 'lrm_signals_missing_total{signal="device"}' in text
    assert 'lrm_model_info{name="shop",version="1"} 1.0' in text
    for line in ("lrm_ready 1.0", "lrm_queue_length 0.0", 'lrm_answers_flagged_total{flag="empty_history"}'):
        assert line in text
