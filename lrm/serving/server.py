"""The HTTP edge: questions in, answers out, and what an operator watches.

The release is loaded in the background: `/healthz` answers at once, `/readyz` once the model is loaded and warm.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lrm.serving import wire
from lrm.serving.batching import Batcher, Overloaded, TooLate
from lrm.serving.guard import RETRY_AFTER_S, TOO_MANY, Limits, guard
from lrm.serving.logs import log, start_logs
from lrm.serving.meters import count_flags, new_meters
from lrm.serving.question import Question, event_problem, problem, shown
from lrm.serving.release import Release
from lrm.serving.swap import InService

DRAIN_S = 20
"""Seconds that requests under way are given when the server stops."""
MAX_PUSHES = 32
"""Requests with events that may wait."""
RECOMMEND_PATH, SCORE_PATH, EVENTS_PATH = "/v1/recommend", "/v1/score", "/v1/events"
LOADING = "the model is still loading; wait until /readyz answers 200"
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.Problem, "description": says}
    for status, says in {
        400: "the body cannot be read",
        401: "the API key is missing or wrong",
        408: "the body came too slowly",
        413: "the body is too large",
        422: "a field is wrong; the message names it",
        429: "too many requests wait; the header retry-after says when to come again",
        503: "the model is still loading",
        504: "there was no answer in time",
    }.items()
}


class Options(NamedTuple):
    """How a server behaves."""

    limits: Limits = Limits()
    max_batch: int = 32
    """Questions answered together at most."""
    max_wait_s: float = 0.0
    """Latency budget: how long a lone question waits for company."""
    max_waiting: int = 64
    """Questions that may wait."""
    deadline_s: float = 2.0
    """Seconds after which a question is given up."""
    prefix_bytes: int = 256 * 2**20
    """Bound of the decoded histories held."""
    follow: Path | None = None
    """A link: what it comes to name is served."""


def make_app(
    release: Release,
    options: Options = Options(),  # noqa: B008 - immutable
    *,
    on_ready: Callable[[], None] = lambda: None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application that serves one release, and those that follow it.

    Args:
        release: the release, not loaded yet.
        options: how to behave.
        on_ready: called once it is loaded and warm.
        on_failure: called if it cannot be loaded; the error is then `app.state.held.failure`.
    """
    app = FastAPI(title="Token Factory", description=f"Recommendations of {release.name}.", lifespan=_lifespan)
    held = InService(release, prefix_bytes=options.prefix_bytes)

    async def answer(asked: list[tuple[Any, Question]]) -> list[dict[str, Any]]:
        meters.batch_size.observe(len(asked))
        return await asyncio.get_running_loop().run_in_executor(held.worker, _answer, asked)

    batcher = Batcher(
        answer,
        max_size=options.max_batch,
        max_wait_s=options.max_wait_s,
        max_waiting=options.max_waiting,
        within_s=options.deadline_s,
    )
    meters = new_meters(
        {
            "lrm_ready": ("Whether the model is loaded and warm", lambda: float(held.service is not None)),
            "lrm_queue_length": ("Questions that wait", lambda: batcher.n_waiting),
            "lrm_prefix_bytes": ("Decoded histories held", lambda: _of_prefixes(held, lambda s: s.remembered.n_bytes)),
            "lrm_prefix_hits": ("Histories at hand", lambda: _of_prefixes(held, lambda s: s.counts["hit"])),
            "lrm_prefix_misses": ("Histories decoded", lambda: _of_prefixes(held, lambda s: s.counts["miss"])),
            "lrm_swaps": ("Releases put in service while serving", lambda: held.swaps["swapped"]),
            "lrm_swaps_refused": ("Releases that were not fit", lambda: held.swaps["refused"]),
        }
    )
    app.state.held, app.state.batcher, app.state.pushes, app.state.meters = held, batcher, 0, meters
    app.state.on_ready, app.state.on_failure, app.state.follow = on_ready, on_failure, options.follow
    app.state.served = {}

    def is_full(path: str) -> bool:
        return path in (RECOMMEND_PATH, SCORE_PATH) and batcher.is_full

    app.add_middleware(guard, meters=meters, limits=options.limits, is_full=is_full)
    _add_refusals(app)
    _add_questions(app)
    _add_status(app)
    return app


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def explain(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            place = first["loc"][-1]
            return _no(422, f"the body is not JSON: character {place}: {first['ctx']['error']}")
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return _no(422, f"{where}: {first['msg']}, got {shown(first.get('input'))}")

    @app.exception_handler(Overloaded)
    async def turn_away(_request: Request, _error: Overloaded) -> JSONResponse:
        app.state.meters.turned_away.labels(TOO_MANY.reason).inc()
        return _no(TOO_MANY.status, TOO_MANY.detail)

    @app.exception_handler(TooLate)
    async def give_up(_request: Request, _error: TooLate) -> JSONResponse:
        app.state.meters.turned_away.labels("deadline").inc()
        return _no(504, "there was no answer in time; send it again in a moment")


def _add_questions(app: FastAPI) -> None:
    state = app.state

    def in_service() -> Any:
        if state.held.service is None:
            raise HTTPException(503, LOADING, {"retry-after": str(RETRY_AFTER_S)})
        return state.held.service

    async def answered(question: Question) -> JSONResponse:
        service = in_service()
        if wrong := problem(question, service.fields, now=datetime.now(UTC)):
            return _no(422, wrong)
        result: dict[str, Any] = await state.batcher.ask((service, question))
        count_flags(state.meters, result["flags"])
        return JSONResponse(result)

    @app.post(RECOMMEND_PATH, response_model=wire.Answer, responses=REFUSALS)
    async def recommend(body: wire.RecommendBody) -> JSONResponse:
        """The k best items of the catalogue, or of the candidates, for a user."""
        return await answered(body.question())

    @app.post(SCORE_PATH, response_model=wire.Answer, responses=REFUSALS)
    async def score(body: wire.ScoreBody) -> JSONResponse:
        """The candidates with the probability of their outcome, the likeliest first."""
        return await answered(body.question())

    @app.post(EVENTS_PATH, response_model=wire.EventsTaken, responses=REFUSALS)
    async def events(body: wire.EventsBody) -> JSONResponse:
        """Take new events, through the feature store's push source; the next answers to their users know them."""
        service, now = in_service(), datetime.now(UTC)
        sent = [one.event() for one in body.events]
        for place, event in enumerate(sent):
            if wrong := event_problem(event, service.fields, where=f"events[{place}]", now=now):
                return _no(422, wrong)
        if state.pushes >= MAX_PUSHES:
            raise Overloaded
        state.pushes += 1
        try:
            loop = asyncio.get_running_loop()
            taken = await loop.run_in_executor(state.held.worker, _take_events, state.held, sent)
        finally:
            state.pushes -= 1
        state.meters.events.labels("new").inc(taken["new"])
        state.meters.events.labels("before").inc(taken["accepted"] - taken["new"])
        return JSONResponse(taken)


def _add_status(app: FastAPI) -> None:
    held: InService = app.state.held

    @app.get("/v1/model", response_model=wire.Model, responses={401: REFUSALS[401]})
    async def model() -> JSONResponse:
        """Which model answers, where it came from, and what a request may carry."""
        release, service = held.release, held.service
        facts: dict[str, Any] = {"name": release.name, "version": release.version, "release": release.folder.name}
        facts |= {"as_of": release.as_of.isoformat(), "refused": held.refused}
        if service is not None:
            facts |= {
                "lineage": service.lineage,
                "n_items": len(service.items.item_ids),
                "keys": service.fields.key_types,
                "context": {signal.name: signal.kind for signal in service.fields.request},
                "candidate_fields": {signal.name: signal.kind for signal in service.fields.candidate},
                "event_fields": {signal.name: signal.kind for signal in service.fields.event},
            }
        return JSONResponse(facts)

    @app.get("/healthz", response_model=wire.Status)
    async def healthz() -> JSONResponse:
        """The process is alive."""
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", response_model=wire.Status, responses={503: {"model": wire.Status}})
    async def readyz() -> JSONResponse:
        """The model is loaded and warm."""
        if held.failure is not None:
            return JSONResponse({"status": "failed", "detail": "the release cannot be loaded; see the log"}, 503)
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


def serve(release: Release, options: Options = Options(), *, host: str, port: int) -> None:  # noqa: B008 - immutable
    """Serve until asked to stop (SIGTERM, Ctrl-C); requests under way are answered first.

    Raises:
        Exception: whatever kept the release from loading.
    """
    start_logs()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):  # the web server stops, then raises what stopped it once more
        signal.signal(stop_signal, lambda *_: None)
    start, address = time.monotonic(), f"http://{host}:{port}"

    def say_ready() -> None:
        seconds = round(time.monotonic() - start, 1)
        log(f"{release.name} version {release.version} is ready on {address}", seconds=seconds)

    def stop() -> None:
        server.should_exit = True

    app = make_app(release, options, on_ready=say_ready, on_failure=stop)
    log(f"loading {release.name} version {release.version}", release=release.folder.name, as_of=str(release.as_of))
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=DRAIN_S
    )
    server = uvicorn.Server(config)
    server.run()
    log("stopped")
    if app.state.held.failure is not None:
        raise app.state.held.failure


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load, follow and batch in the background; stop all on the way out."""
    held: InService = app.state.held
    link: Path | None = app.state.follow
    named = None if link is None else link.resolve()

    async def load_and_follow() -> None:
        await held.start()
        (app.state.on_failure if held.failure else app.state.on_ready)()
        if link is not None and named is not None and not held.failure:
            await held.follow(link, named)

    tasks = [asyncio.create_task(load_and_follow()), asyncio.create_task(app.state.batcher.run())]
    yield
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    held.close()


def _answer(asked: list[tuple[Any, Question]]) -> list[dict[str, Any]]:
    """Answer each question by the release that it was checked against."""
    from lrm.serving.answer import answer

    answers: list[dict[str, Any]] = [{}] * len(asked)
    for service in {id(service): service for service, _ in asked}.values():
        places = [place for place, (mine, _) in enumerate(asked) if mine is service]
        for place, one in zip(places, answer(service, [asked[place][1] for place in places]), strict=True):
            answers[place] = one
    return answers


def _take_events(held: InService, sent: list[Any]) -> dict[str, int]:
    from lrm.serving.events import take_events

    return take_events(held.service, sent)


def _of_prefixes(held: InService, read: Callable[[Any], float]) -> float:
    return 0.0 if held.service is None else float(read(held.service))


def _no(status: int, detail: str) -> JSONResponse:
    """An answer that says why there is none."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if status in (429, 503, 504) else None
    return JSONResponse({"detail": detail}, status, headers)
