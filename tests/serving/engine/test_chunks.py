"""A question with many candidates is answered piece by piece, as if it were asked at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lrm.serving.engine.batching import Rest
from lrm.serving.engine.chunks import AT_ONCE, TOGETHER, Work, after, next_piece, work_of
from lrm.serving.engine.predict import answer
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, Question
from lrm.serving.engine.session import open_service
from lrm.serving.http import app
from tests.serving.conftest import ask, serving
from tests.serving.shop import AS_OF


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


def test_a_server_answers_light_questions_between_the_pieces_of_heavy_ones(world, monkeypatch):
    done, is_heavy_begun = [], threading.Event()
    inner = app._answer

    def watched(asked):
        done.append([(work.question.kind, len(next_piece(work).candidates or ())) for work in asked])
        if done[-1][0][0] == SCORE:
            is_heavy_begun.set()
        return inner(asked)

    monkeypatch.setattr(app, "_answer", watched)
    many = [100 + at % 12 for at in range(2000)]
    with serving(world.release, deadline_s=30.0) as address, ThreadPoolExecutor(8) as pool:
        heavy = [pool.submit(ask, address, "/v1/score", user_id=user, candidates=many) for user in range(1, 5)]
        assert is_heavy_begun.wait(10)
        assert ask(address, "/v1/recommend", user_id=6)[0] == 200
        for one in heavy:
            status, told = one.result()
            assert (status, len(told["items"])) == (200, 2000)
    kinds = [{kind for kind, _ in batch} for batch in done]
    assert all(len(kind) == 1 for kind in kinds)  # none waits for another's heavy work in its own batch
    assert max(sum(n for _, n in batch) for batch in done) == AT_ONCE
    assert kinds.index({RECOMMEND}) < len(kinds) - 1  # it did not wait for all of them
