"""The routes: what each takes and gives, and how a request that cannot be answered is told so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json

from lrm.errors import StoreError
from lrm.serving.engine.batching import Batcher, Overloaded, TooLate
from lrm.serving.engine.chunks import Work
from lrm.serving.engine.request_checks import (
    SHOWN,
    Event,
    Key,
    Question,
    event_problem,
    problem,
    shown,
    stored_event,
    stored_question,
)
from lrm.serving.engine.rust_panics import contained
from lrm.serving.http import schemas
from lrm.serving.http.metrics import count_flags
from lrm.serving.http.middleware import API_KEY, RETRY_AFTER_S, TOO_MANY
from lrm.serving.releases.hot_reload import InService

MAX_PUSHES = 32
"""Requests with events that may wait."""
USERS_AT_ONCE = 16
"""Users whose events are pushed together; questions are answered between two such pushes."""
MAX_USERS_WAITING = 400
"""Users whose events may wait."""
RECOMMEND_PATH, SCORE_PATH, EVENTS_PATH = "/v1/recommend", "/v1/score", "/v1/events"
LOADING = "the model is still loading; wait until /readyz answers 200"
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": says}
    for status, says in {
        400: "the body cannot be read",
        401: "the API key is missing or wrong",
        408: "the body came too slowly",
        413: "the body is too large",
        422: "a field is wrong; the message names it",
        429: "too many requests wait; the header retry-after says when to come again",
        503: "the model is still loading, or new events cannot be kept now",
        504: "there was no answer in time",
    }.items()
}


class Answered(JSONResponse):
    """An answer, written by pydantic's encoder: for long lists several times as quick as Python's."""

    def render(self, content: Any) -> bytes:
        """As JSON; a number that is none as null."""
        return to_json(content, inf_nan_mode="null")


def add_refusals(app: FastAPI) -> None:
    """Say in one form what is wrong with a request, or why it gets no answer now."""

    @app.exception_handler(RequestValidationError)
    async def explain(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["loc"] == ("body",) and (wrong := _no_object(first.get("input"), request.headers.get("content-type"))):
            return _no(422, wrong)
        if first["type"] == "json_invalid":
            place = first["loc"][-1]
            return _no(422, f"the body is not JSON: character {place}: {first['ctx']['error']}")
        where = ".".join(_name(part) for part in first["loc"] if part != "body") or "body"
        return _no(422, f"{where}: {first['msg']}, got {shown(first.get('input'))}")

    @app.exception_handler(Overloaded)
    async def turn_away(_request: Request, _error: Overloaded) -> JSONResponse:
        app.state.meters.turned_away.labels(TOO_MANY.reason).inc()
        return _no(TOO_MANY.status, TOO_MANY.detail)

    @app.exception_handler(StoreError)
    async def come_back(_request: Request, _error: StoreError) -> JSONResponse:
        app.state.meters.turned_away.labels("store").inc()
        return _no(503, "the online store does not answer, so new events cannot be kept; send them again in a moment")

    @app.exception_handler(TooLate)
    async def give_up(_request: Request, _error: TooLate) -> JSONResponse:
        app.state.meters.turned_away.labels("deadline").inc()
        return _no(504, "there was no answer in time; send it again in a moment")


def add_questions(app: FastAPI) -> None:
    """Add what callers ask: recommendations, scores, and to take new events."""
    state = app.state

    def in_service() -> Any:
        if state.held.service is None:
            raise HTTPException(503, LOADING, {"retry-after": str(RETRY_AFTER_S)})
        return state.held.service

    async def answered(question: Question) -> JSONResponse:
        service = in_service()
        question = stored_question(question, service.fields)
        if wrong := problem(question, service.fields, now=datetime.now(UTC)):
            return _no(422, wrong)
        result: dict[str, Any] = await state.batcher.ask(Work(service, question))
        count_flags(state.meters, result["flags"])
        state.meters.unknown_items.labels("candidates").inc(len(result["unknown_items"]))
        return Answered(result)

    @app.post(RECOMMEND_PATH, response_model=schemas.Answer, responses=REFUSALS)
    async def recommend(body: schemas.RecommendBody) -> JSONResponse:
        """The k best items of the catalogue, or of the candidates, for a user."""
        return await answered(body.question())

    @app.post(SCORE_PATH, response_model=schemas.Answer, responses=REFUSALS)
    async def score(body: schemas.ScoreBody) -> JSONResponse:
        """The candidates with the probability of their outcome, the likeliest first."""
        return await answered(body.question())

    @app.post(EVENTS_PATH, response_model=schemas.EventsTaken, responses=REFUSALS)
    async def events(body: schemas.EventsBody) -> JSONResponse:
        """Take new events, through the feature store's push source; the next answers to their users know them."""
        service, now = in_service(), datetime.now(UTC)
        sent = [stored_event(one.event(), service.fields) for one in body.events]
        for place, event in enumerate(sent):
            if wrong := event_problem(event, service.fields, where=f"events[{place}]", now=now):
                return _no(422, wrong)
        if state.pushes >= MAX_PUSHES:
            raise Overloaded
        by_user: dict[Key, list[Event]] = {}
        for event in sent:
            by_user.setdefault(event.user_id, []).append(event)
        state.pushes += 1
        try:
            new = sum(await state.pusher.ask_all(list(by_user.values())))
        finally:
            state.pushes -= 1
        unknown = _unknown_items(service, sent)
        state.meters.events.labels("new").inc(new)
        state.meters.events.labels("before").inc(len(sent) - new)
        state.meters.unknown_items.labels("events").inc(len(unknown))
        return JSONResponse({"accepted": len(sent), "new": new, "unknown_items": unknown})


def new_pusher(held: InService) -> Batcher[list[Event], int]:
    """What takes new events, those of one user that came together at a time: says how many of them were not known.

    They wait for the worker a few users at a time, so no push keeps it from the questions for long.
    """

    async def take(pushes: list[list[Event]]) -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(held.worker, contained, _take_events, held, pushes)

    return Batcher(take, max_size=USERS_AT_ONCE, max_waiting=MAX_USERS_WAITING, within_s=None)


def add_status(app: FastAPI) -> None:
    """Add what operators ask: the model, whether it is well, its counters."""
    held: InService = app.state.held

    @app.get("/v1/model", response_model=schemas.Model, responses={401: REFUSALS[401]})
    async def model() -> JSONResponse:
        """Which model answers, where it came from, and what a request may carry."""
        release, service = held.release, held.service
        facts: dict[str, Any] = {"name": release.name, "version": release.version, "release": release.folder.name}
        facts |= {"sha256": release.sha256, "digest": app.state.digest}
        facts |= {"as_of": release.as_of.isoformat(), "refused": held.refused}
        if service is not None:
            facts |= {
                "lineage": service.lineage,
                "n_items": len(service.items.item_ids),
                "index": service.index_facts,
                "decoder": service.decoder_facts,
                "keys": service.fields.key_types,
                "context": schemas.declared(service.fields.request),
                "candidate_fields": schemas.declared(service.fields.candidate),
                "event_fields": schemas.declared(service.fields.event),
            }
        return JSONResponse(facts)

    @app.get("/healthz", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def healthz() -> JSONResponse:
        """The process is alive, and all that it does in the background goes on."""
        if wrong := app.state.health.problem():
            return JSONResponse({"status": "failed", "detail": wrong}, 503)
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def readyz() -> JSONResponse:
        """The model is loaded and warm, and questions and events are taken."""
        if wrong := app.state.health.problem():
            return JSONResponse({"status": "failed", "detail": wrong}, 503)
        if held.failure is not None:
            return JSONResponse({"status": "failed", "detail": "the release cannot be loaded; see the log"}, 503)
        if app.state.is_leaving:
            return JSONResponse({"status": "leaving", "detail": "the server is about to stop"}, 503)
        is_ready = held.service is not None
        return JSONResponse({"status": "ready" if is_ready else "loading"}, status_code=200 if is_ready else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counters and latencies, in Prometheus' text form."""
        meters, now = app.state.meters, (held.release.name, held.release.version)
        app.state.served[now] = None
        for one in app.state.served:
            meters.model.labels(*one).set(one == now)
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)


def declare_key(app: FastAPI) -> None:
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


def _take_events(held: InService, pushes: list[list[Event]]) -> list[int]:
    from lrm.serving.engine.event_ingest import take_events

    return take_events(held.service, pushes)


def _unknown_items(service: Any, sent: list[Event]) -> list[Key]:
    from lrm.serving.engine.session import unknown_items

    return unknown_items(service, [event.item_id for event in sent])


def _no_object(body: Any, content_type: str | None) -> str:
    """What is wrong with a body as a whole; "" if it was read as JSON."""
    if body is None:
        return "the body is empty; send a JSON object, and the header content-type: application/json"
    if isinstance(body, bytes):
        given = "none" if content_type is None else shown(content_type)
        return f"the body is read as JSON only with the header content-type: application/json, got {given}; send it too"
    return ""


def _name(part: int | str) -> str:
    """A part of a place in a body; half of a character, which JSON can spell, cannot be sent back."""
    return str(part)[:SHOWN].encode(errors="backslashreplace").decode()


def _no(status: int, detail: str) -> JSONResponse:
    """An answer that says why there is none."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if status in (429, 503, 504) else None
    return JSONResponse({"detail": detail}, status, headers)
