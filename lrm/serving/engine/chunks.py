"""A question with many candidates, answered piece by piece, so that others are answered in between."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from lrm.serving.engine.batching import Rest
from lrm.serving.engine.request_checks import SCORE, Question

TOGETHER = 32
"""Candidates up to which a request shares its pass with others: all are padded to the longest."""
AT_ONCE = 512
"""Candidates of one pass; more are scored in several."""


class Work(NamedTuple):
    """A question, and how far it is answered."""

    service: Any
    """By which it was checked, and all of it is answered."""
    question: Question
    answered: tuple[dict[str, Any], ...] = ()
    """Its first candidates, piece by piece."""


def work_of(work: Work) -> float:
    """Passes that a question with many candidates needs yet, in parts of a full one; 0 for all others.

    What else differs between questions is not counted. The prompt is as long as the model reads for all of them, and a
    history is decoded once and then kept; with 20 users at a time that costs half as much again as for one. Candidates
    to choose the best from are described already.
    """
    n_left = 0 if work.question.kind != SCORE else len(work.question.candidates or ())
    return n_left / AT_ONCE if n_left > TOGETHER or work.answered else 0.0


def next_piece(work: Work) -> Question:
    """What is asked of the service now."""
    if not work_of(work):
        return work.question
    return work.question._replace(candidates=(work.question.candidates or ())[:AT_ONCE])


def after(work: Work, answer: dict[str, Any]) -> dict[str, Any] | Rest[Work]:
    """The answer, or what is left to do, once the next piece is answered.

    All pieces are answered as of the instant of the first, whatever events come meanwhile.
    """
    answered = (*work.answered, answer)
    if work_of(work) and (rest := (work.question.candidates or ())[AT_ONCE:]):
        time = datetime.fromisoformat(answered[0]["time"])
        return Rest(work._replace(question=work.question._replace(candidates=rest, time=time), answered=answered))
    return answer if len(answered) == 1 else _whole(work.question, answered)


def _whole(question: Question, answered: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    items = [item for one in answered for item in one["items"]]
    items.sort(key=lambda item: -item["probability"])  # stable: of equal ones the first stays first
    flags = [one["flags"] for one in answered]
    expired = {name for one in flags for name in one["expired"]}
    missing = {name for one in flags for name in one["missing"]}
    return answered[0] | {
        "items": items[: question.k],
        "unknown_items": [item for one in answered for item in one["unknown_items"]],
        "flags": flags[0]
        | {"missing": sorted(missing - expired), "expired": sorted(expired)}
        | {"store_down": any(one["store_down"] for one in flags)},
    }
