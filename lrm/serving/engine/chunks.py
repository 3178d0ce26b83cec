"""Answer a request with many candidates in chunks, so that other requests are answered in between."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from lrm.serving.engine.answer import Answer, Flags
from lrm.serving.engine.batching import Unfinished
from lrm.serving.engine.request_checks import SCORE, PredictRequest

if TYPE_CHECKING:  # it imports torch, and a server listens before that is loaded
    from lrm.serving.engine.session import Session

MAX_SHARED_CANDIDATES = 32
"""A request with at most so many candidates shares its pass with others: all are padded to the longest."""
CHUNK_CANDIDATES = 512
"""Candidates of one pass at most; more are scored in several passes."""


class Job(NamedTuple):
    """A request on its way through the batcher, and the answers to its first chunks."""

    session: Session
    """The release that checked the request; it answers all chunks."""
    request: PredictRequest
    """What is left to answer."""
    partial_answers: tuple[Answer, ...] = ()


def cost_of(job: Job) -> float:
    """Return the passes that a request with many candidates still needs, in parts of a full one; 0 for a light request.

    Nothing else is counted. Every prompt is as long as the model reads, and a history is decoded once and then kept: 20
    new users at a time cost half as much again as one. Candidates of a recommend request are described already.
    """
    n_left = 0 if job.request.kind != SCORE else len(job.request.candidates or ())
    return n_left / CHUNK_CANDIDATES if n_left > MAX_SHARED_CANDIDATES or job.partial_answers else 0.0


def next_chunk(job: Job) -> PredictRequest:
    """Return the part of the request that the next pass answers."""
    if not cost_of(job):
        return job.request
    return job.request._replace(candidates=(job.request.candidates or ())[:CHUNK_CANDIDATES])


def advance(job: Job, answer: Answer) -> Answer | Unfinished[Job]:
    """Return the whole answer, or the job that is left once the next chunk is answered.

    All chunks are answered as of the instant of the first, whatever events arrive meanwhile.
    """
    answers = (*job.partial_answers, answer)
    if cost_of(job) and (rest := (job.request.candidates or ())[CHUNK_CANDIDATES:]):
        time = datetime.fromisoformat(answers[0]["time"])
        request = job.request._replace(candidates=rest, time=time)
        return Unfinished(job._replace(request=request, partial_answers=answers))
    return answer if len(answers) == 1 else _merged(job.request, answers)


def _merged(request: PredictRequest, answers: tuple[Answer, ...]) -> Answer:
    items = [item for answer in answers for item in answer["items"]]
    items.sort(key=lambda item: -item["probability"])  # stable: equal ones keep their order
    expired = {name for answer in answers for name in answer["flags"]["expired"]}
    missing = {name for answer in answers for name in answer["flags"]["missing"]}
    changed: Flags = {
        **answers[0]["flags"],
        "missing": sorted(missing - expired),
        "expired": sorted(expired),
        "store_down": any(answer["flags"]["store_down"] for answer in answers),
    }
    return {
        **answers[0],
        "items": items[: request.k],
        "unknown_items": [item for answer in answers for item in answer["unknown_items"]],
        "flags": changed,
    }
