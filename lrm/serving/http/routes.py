"""Routes for callers: recommend, score, and take new events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from lrm.serving.engine.batching import Overloaded
from lrm.serving.engine.chunks import Job
from lrm.serving.engine.request_checks import (
    Event,
    Key,
    PredictRequest,
    event_problem,
    normalise_event,
    normalise_request,
    problem,
)
from lrm.serving.http import schemas
from lrm.serving.http.errors import REFUSALS, refusal
from lrm.serving.http.metrics import count_flags
from lrm.serving.http.middleware import API_KEY, RETRY_AFTER_S
from lrm.serving.http.server import MAX_INGEST_REQUESTS, Server

if TYPE_CHECKING:
    from lrm.serving.engine.session import Session

RECOMMEND_PATH, SCORE_PATH, EVENTS_PATH = "/v1/recommend", "/v1/score", "/v1/events"
PREDICT_PATHS = (RECOMMEND_PATH, SCORE_PATH)
"""Routes whose requests wait in the prediction queue."""
LOADING = "the model is still loading; wait until /readyz answers 200"


class AnswerResponse(JSONResponse):
    """An answer, written by pydantic's encoder: for long lists several times as fast as Python's."""

    def render(self, content: Any) -> bytes:
        """Write JSON; a number that is not finite becomes null."""
        return to_json(content, inf_nan_mode="null")


def add_predict_routes(app: FastAPI, server: Server) -> None:
    """Add the routes that predict."""

    @app.post(RECOMMEND_PATH, response_model=schemas.Answer, responses=REFUSALS)
    async def recommend(body: schemas.RecommendBody) -> JSONResponse:
        """The k best items of the catalogue, or of the candidates, for a user."""
        return await predict_one(server, body.request())

    @app.post(SCORE_PATH, response_model=schemas.Answer, responses=REFUSALS)
    async def score(body: schemas.ScoreBody) -> JSONResponse:
        """The candidates with the probability of their outcome, the likeliest first."""
        return await predict_one(server, body.request())


def add_event_route(app: FastAPI, server: Server) -> None:
    """Add the route that takes new events."""

    @app.post(EVENTS_PATH, response_model=schemas.EventsTaken, responses=REFUSALS)
    async def events(body: schemas.EventsBody) -> JSONResponse:
        """Take new events, through the feature store's push source; the next answers to their users know them."""
        return await ingest(server, [event.event() for event in body.events])


async def predict_one(server: Server, request: PredictRequest) -> JSONResponse:
    """Check a request, wait for its answer, and count what the answer lacks."""
    session = loaded_session(server)
    request = normalise_request(request, session.fields)
    if wrong := problem(request, session.fields, now=datetime.now(UTC)):
        return refusal(422, wrong)
    answer = await server.predictions.submit(Job(session, request))
    count_flags(server.metrics, answer["flags"])
    server.metrics.unknown_items.labels("candidates").inc(len(answer["unknown_items"]))
    return AnswerResponse(answer)


async def ingest(server: Server, events: list[Event]) -> JSONResponse:
    """Check new events and write them to the online store: all of them, or none."""
    session, now = loaded_session(server), datetime.now(UTC)
    events = [normalise_event(event, session.fields) for event in events]
    for place, event in enumerate(events):
        if wrong := event_problem(event, session.fields, where=f"events[{place}]", now=now):
            return refusal(422, wrong)
    if server.n_ingest_requests >= MAX_INGEST_REQUESTS:
        raise Overloaded
    by_user: dict[Key, list[Event]] = {}
    for event in events:
        by_user.setdefault(event.user_id, []).append(event)
    server.n_ingest_requests += 1
    try:
        n_new = sum(await server.ingestion.submit_all(list(by_user.values())))
    finally:
        server.n_ingest_requests -= 1
    unknown = _unknown_items(session, events)
    server.metrics.events.labels("new").inc(n_new)
    server.metrics.events.labels("duplicate").inc(len(events) - n_new)
    server.metrics.unknown_items.labels("events").inc(len(unknown))
    return JSONResponse({"accepted": len(events), "new": n_new, "unknown_items": unknown})


def loaded_session(server: Server) -> Session:
    """Return the release in service.

    Raises:
        HTTPException: 503, the release is still loading.
    """
    if server.releases.session is None:
        raise HTTPException(503, LOADING, {"retry-after": str(RETRY_AFTER_S)})
    return server.releases.session


def declare_api_key(app: FastAPI) -> None:
    """Say in the OpenAPI document that /v1/ asks for a key: clients made of it send one, /docs has a place for it."""
    plain = app.openapi

    def with_key() -> dict[str, Any]:
        document = plain()
        scheme = {"type": "apiKey", "in": "header", "name": API_KEY.decode()}
        document.setdefault("components", {})["securitySchemes"] = {"key": scheme}
        for path, operations in document["paths"].items():
            for operation in operations.values() if path.startswith("/v1/") else ():
                operation["security"] = [{"key": []}]
        return document

    app.openapi = with_key  # type: ignore[method-assign]


def _unknown_items(session: Session, events: list[Event]) -> list[Key]:
    from lrm.serving.engine.session import unknown_items

    return unknown_items(session, [event.item_id for event in events])
