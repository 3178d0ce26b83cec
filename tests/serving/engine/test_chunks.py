"""A question with many candidates is answered piece by piece, as if it were asked at once."""

import math
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lrm.serving.engine.batching import Unfinished
from lrm.serving.engine.chunks import CHUNK_CANDIDATES, MAX_SHARED_CANDIDATES, Job, advance, cost_of, next_chunk
from lrm.serving.engine.predict import predict
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, PredictRequest
from lrm.serving.engine.session import open_session
from tests.serving.conftest import ask, serving
from tests.serving.shop import AS_OF
from tests.serving.test_live import until


def candidates(n, *, shelf=None):
    """The shop's items again and again, some unknown, each with a value of its own."""
    return tuple(
        {"item_id": 100 + at % 13 if at % 100 else 7} | ({} if shelf is None else {"shelf": at / n}) for at in range(n)
    )


def piece_by_piece(session, request):
    work, n_pieces = Job(session, request), 0
    while True:
        piece = next_chunk(work)
        assert len(piece.candidates) <= CHUNK_CANDIDATES
        (one,) = predict(session, [piece])
        n_pieces += 1
        told = advance(work, one)
        if not isinstance(told, Unfinished):
            return told, n_pieces
        work = told.request


@pytest.mark.parametrize("k", [None, 5, 700])
@pytest.mark.parametrize(("n", "n_pieces"), [(1, 1), (CHUNK_CANDIDATES, 1), (CHUNK_CANDIDATES + 1, 2), (2000, 4)])
@pytest.mark.parametrize("user", [1, 999])
def test_the_answer_is_that_of_the_question_asked_at_once(world, n, n_pieces, k, user):
    session = open_session(world.release)
    request = PredictRequest(SCORE, user, None, {"store_id": 1}, candidates(n, shelf=True), k)
    (whole,) = predict(session, [request])
    told, pieces = piece_by_piece(session, request)
    assert pieces == n_pieces
    assert [one["item_id"] for one in told["items"]] == [one["item_id"] for one in whole["items"]]
    found, expected = ([one["probability"] for one in said["items"]] for said in (told, whole))
    assert found == pytest.approx(expected, abs=1e-6)
    assert told | {"items": []} == whole | {"items": []}


def test_all_pieces_are_answered_as_of_the_instant_of_the_first():
    request = PredictRequest(SCORE, 1, None, {}, candidates(2 * CHUNK_CANDIDATES), None)
    flags = {"missing": [], "expired": [], "store_down": False}
    first = {"time": (AS_OF + timedelta(hours=1)).isoformat(), "items": [], "unknown_items": [], "flags": flags}
    rest = advance(Job(None, request), first)
    assert next_chunk(rest.request).time == AS_OF + timedelta(hours=1)


@pytest.mark.parametrize(
    ("sent", "units"),
    [
        (PredictRequest(RECOMMEND, 1), 0),
        (PredictRequest(RECOMMEND, 1, None, {}, candidates(2000), 1000), 0),
        (PredictRequest(SCORE, 1, None, {}, candidates(MAX_SHARED_CANDIDATES)), 0),
        (PredictRequest(SCORE, 1, None, {}, candidates(MAX_SHARED_CANDIDATES + 1)), 33 / 512),
        (PredictRequest(SCORE, 1, None, {}, candidates(2000)), 2000 / 512),
    ],
)
def test_what_has_many_candidates_to_score_is_heavy(sent, units):
    assert cost_of(Job(None, sent)) == units


def batches_of(address):
    """How many batches a server has answered, and how many of them held one question alone."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        values = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
    return float(values["lrm_batch_size_count"]), float(values['lrm_batch_size_bucket{le="1.0"}'])


def test_a_server_answers_light_questions_between_the_pieces_of_heavy_ones(world):
    many = [100 + at % 12 for at in range(2000)]
    with serving(world.release, deadline_s=30.0) as address, ThreadPoolExecutor(8) as pool:
        heavy = [pool.submit(ask, address, "/v1/score", user_id=user, candidates=many) for user in range(1, 5)]
        until(lambda: batches_of(address)[0])
        assert ask(address, "/v1/recommend", user_id=6)[0] == 200
        assert not all(answered.done() for answered in heavy)  # it did not wait for all of them
        for one in heavy:
            status, told = one.result()
            assert (status, len(told["items"])) == (200, 2000)
        n_pieces = len(heavy) * math.ceil(len(many) / CHUNK_CANDIDATES)
        assert batches_of(address) == (n_pieces + 1, n_pieces + 1)  # none waits for another's heavy work in its batch
