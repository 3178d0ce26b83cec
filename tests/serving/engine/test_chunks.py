"""A question with many candidates is answered piece by piece, as if it were asked at once."""

import math
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lrm.serving.engine.batching import Rest
from lrm.serving.engine.chunks import AT_ONCE, TOGETHER, Work, after, next_piece, work_of
from lrm.serving.engine.predict import answer
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, Question
from lrm.serving.engine.session import open_service
from tests.serving.conftest import ask, serving
from tests.serving.shop import AS_OF
from tests.serving.test_live import until


def candidates(n, *, shelf=None):
    """The shop's items again and again, some unknown, each with a value of its own."""
    return tuple(
        {"item_id": 100 + at % 13 if at % 100 else 7} | ({} if shelf is None else {"shelf": at / n}) for at in range(n)
    )


def piece_by_piece(service, question):
    work, n_pieces = Work(service, question), 0
    while True:
        piece = next_piece(work)
        assert len(piece.candidates) <= AT_ONCE
        (one,) = answer(service, [piece])
        n_pieces += 1
        told = after(work, one)
        if not isinstance(told, Rest):
            return told, n_pieces
        work = told.question


@pytest.mark.parametrize("k", [None, 5, 700])
@pytest.mark.parametrize(("n", "n_pieces"), [(1, 1), (AT_ONCE, 1), (AT_ONCE + 1, 2), (2000, 4)])
@pytest.mark.parametrize("user", [1, 999])
def test_the_answer_is_that_of_the_question_asked_at_once(world, n, n_pieces, k, user):
    service = open_service(world.release)
    question = Question(SCORE, user, None, {"store_id": 1}, candidates(n, shelf=True), k)
    (whole,) = answer(service, [question])
    told, pieces = piece_by_piece(service, question)
    assert pieces == n_pieces
    assert [one["item_id"] for one in told["items"]] == [one["item_id"] for one in whole["items"]]
    found, expected = ([one["probability"] for one in said["items"]] for said in (told, whole))
    assert found == pytest.approx(expected, abs=1e-6)
    assert told | {"items": []} == whole | {"items": []}


def test_all_pieces_are_answered_as_of_the_instant_of_the_first():
    question = Question(SCORE, 1, None, {}, candidates(2 * AT_ONCE), None)
    flags = {"missing": [], "expired": [], "store_down": False}
    first = {"time": (AS_OF + timedelta(hours=1)).isoformat(), "items": [], "unknown_items": [], "flags": flags}
    rest = after(Work(None, question), first)
    assert next_piece(rest.question).time == AS_OF + timedelta(hours=1)


@pytest.mark.parametrize(
    ("question", "units"),
    [
        (Question(RECOMMEND, 1), 0),
        (Question(RECOMMEND, 1, None, {}, candidates(2000), 1000), 0),
        (Question(SCORE, 1, None, {}, candidates(TOGETHER)), 0),
        (Question(SCORE, 1, None, {}, candidates(TOGETHER + 1)), 33 / 512),
        (Question(SCORE, 1, None, {}, candidates(2000)), 2000 / 512),
    ],
)
def test_what_has_many_candidates_to_score_is_heavy(question, units):
    assert work_of(Work(None, question)) == units


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
        n_pieces = len(heavy) * math.ceil(len(many) / AT_ONCE)
        assert batches_of(address) == (n_pieces + 1, n_pieces + 1)  # none waits for another's heavy work in its batch
