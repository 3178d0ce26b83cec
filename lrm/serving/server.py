"""The HTTP edge: questions in, answers out, and what an operator watches.

The release is loaded in the background: `/healthz` answers at once, `/readyz` once the model is loaded and warm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from lrm.schema import ITEM_ID
from lrm.serving.batching import Batcher
from lrm.serving.question import RANK, RECOMMEND, Question, problem
from lrm.serving.release import Release

MAX_CANDIDATES = 10_000
MAX_K = 1000
DRAIN_S = 20
"""Seconds that requests under way are given when the server stops."""
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Body(BaseModel):
    """The body of both questions."""

    model_config = ConfigDict(extra="forbid")

    user_id: StrictInt | StrictStr
    k: int = Field(10, ge=1, le=MAX_K, description="how many items at most")
    time: AwareDatetime | None = Field(None, description="instant of the request, with a zone; default: now")
    context: dict[str, Any] = Field(default_factory=dict, description="request signals and join keys")
    candidates: list[StrictInt | StrictStr | dict[str, Any]] | None = Field(None, max_length=MAX_CANDIDATES)
    exclude_seen: StrictBool = Field(False, description="leave out the items of the user's history")


def make_app(
    release: Release, *, on_ready: Callable[[], None] = lambda: None, on_failure: Callable[[], None] = lambda: None
) -> FastAPI:
    """The application that serves one release.

    Args:
        release: the release, not loaded yet.
        on_ready: called once it is loaded and warm.
        on_failure: called if it cannot be loaded; the error is then `app.state.failure`.
    """
    app = FastAPI(title=f"{release.name} version {release.version}", lifespan=_lifespan)
    app.state.release, app.state.service, app.state.failure = release, None, None
    app.state.on_ready, app.state.on_failure = on_ready, on_failure
    app.state.worker = ThreadPoolExecutor(1, thread_name_prefix="score")  # the stores and the model are one thread's
    registry = CollectorRegistry()
    requests = Counter("lrm_requests_total", "Requests", ["route", "status"], registry=registry)
    latency = Histogram("lrm_request_seconds", "Latency", ["route"], buckets=SECONDS, registry=registry)
    cold = Counter("lrm_cold_total", "Answers without any known history", registry=registry)
    app.state.batch_size = Histogram(
        "lrm_batch_size", "Questions answered together", buckets=(1, 2, 4, 8, 16, 32), registry=registry
    )
    Gauge("lrm_ready", "Whether the model is loaded and warm", registry=registry).set_function(
        lambda: float(app.state.service is not None)
    )

    @app.exception_handler(RequestValidationError)
    async def explain(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            place = first["loc"][-1]
            return JSONResponse({"detail": f"the body is not JSON: character {place}: {first['ctx']['error']}"}, 422)
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return JSONResponse({"detail": f"{where}: {first['msg']}, got {first.get('input')!r}"}, status_code=422)

    @app.middleware("http")
    async def measure(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        start, status = time.perf_counter(), 500
        try:
            response = await proceed(request)
            status = response.status_code
            return response
        finally:
            found = request.scope.get("route")
            route = found.path if found is not None else "unknown"
            requests.labels(route, str(status)).inc()
            latency.labels(route).observe(time.perf_counter() - start)

    async def answered(kind: str, body: Body) -> dict[str, Any]:
        from lrm.serving.service import default_time

        if app.state.service is None:
            raise HTTPException(503, "the model is still loading; wait until /readyz answers 200")
        given = body.candidates
        candidates = None if given is None else tuple(c if isinstance(c, dict) else {ITEM_ID: c} for c in given)
        asked = body.time or default_time(app.state.service)
        question = Question(kind, body.user_id, asked, body.context, candidates, body.k, body.exclude_seen)
        if wrong := problem(question, app.state.service.fields):
            raise HTTPException(422, wrong)
        result: dict[str, Any] = await app.state.batcher.ask(question)
        if result["cold"]:
            cold.inc()
        return result

    @app.post("/v1/recommend")
    async def recommend(body: Body) -> dict[str, Any]:
        """The k best items of the catalogue, or of the candidates, for a user."""
        return await answered(RECOMMEND, body)

    @app.post("/v1/rank")
    async def rank(body: Body) -> dict[str, Any]:
        """The candidates with the probability of their outcome, the likeliest first."""
        return await answered(RANK, body)

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Which model answers, and what a request may carry."""
        facts = {"name": release.name, "version": release.version, "as_of": release.as_of.isoformat()}
        service = app.state.service
        if service is None:
            return facts
        return facts | {
            "n_items": len(service.items.item_ids),
            "keys": service.fields.key_types,
            "context": {signal.name: signal.kind for signal in service.fields.request},
            "candidate_fields": {signal.name: signal.kind for signal in service.fields.candidate},
        }

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """The model is loaded and warm."""
        if app.state.failure is not None:
            return JSONResponse({"status": "failed", "detail": str(app.state.failure)}, status_code=503)
        is_ready = app.state.service is not None
        return JSONResponse({"status": "ready" if is_ready else "loading"}, status_code=200 if is_ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and latencies, in Prometheus' text form."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def serve(release: Release, *, host: str, port: int) -> None:
    """Serve until asked to stop (SIGTERM, Ctrl-C); requests under way are answered first.

    Raises:
        Exception: whatever kept the release from loading.
    """
    start, address = time.perf_counter(), f"http://{host}:{port}"

    def say_ready() -> None:
        seconds = time.perf_counter() - start
        print(f"{release.name} version {release.version} is ready on {address} ({seconds:.1f} s)", flush=True)

    def stop() -> None:
        server.should_exit = True

    app = make_app(release, on_ready=say_ready, on_failure=stop)
    server = uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=DRAIN_S)
    )
    server.run()
    if app.state.failure is not None:
        raise app.state.failure


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load and batch in the background; stop both on the way out."""
    loop = asyncio.get_running_loop()

    async def answer(questions: list[Question]) -> list[dict[str, Any]]:
        from lrm.serving.service import answer as answer_all

        app.state.batch_size.observe(len(questions))
        return await loop.run_in_executor(app.state.worker, answer_all, app.state.service, questions)

    async def load() -> None:
        try:
            app.state.service = await loop.run_in_executor(app.state.worker, _load, app.state.release)
            app.state.on_ready()
        except Exception as error:
            app.state.failure = error
            app.state.on_failure()

    app.state.batcher = Batcher(answer)
    tasks = [asyncio.create_task(load()), asyncio.create_task(app.state.batcher.run())]
    yield
    app.state.service = None
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    app.state.worker.shutdown(wait=True, cancel_futures=True)


def _load(release: Release) -> Any:
    import torch

    from lrm.serving.service import open_service

    torch.set_num_threads(1)  # a request is small work: more threads would wait for each other
    return open_service(release)
