"""Routes for operators: which model answers, health, readiness and metrics."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lrm.serving.http import schemas
from lrm.serving.http.errors import REFUSALS
from lrm.serving.http.server import Server


def add_status_routes(app: FastAPI, server: Server) -> None:
    """Add the routes that operators ask: the model, health, metrics."""
    releases, metrics = server.releases, server.metrics

    @app.get("/v1/model", response_model=schemas.Model, responses={401: REFUSALS[401]})
    async def model() -> JSONResponse:
        """Which model answers, where it came from, and what a request may carry."""
        release, session = releases.release, releases.session
        facts: dict[str, Any] = {"name": release.name, "version": release.version, "release": release.folder.name}
        facts |= {"sha256": release.sha256, "digest": server.digest}
        facts |= {"as_of": release.as_of.isoformat(), "refused": releases.refused}
        if session is not None:
            facts |= {
                "lineage": session.lineage,
                "n_items": len(session.items.item_ids),
                "index": session.index_facts,
                "decoder": session.decoder_facts,
                "keys": session.fields.key_types,
                "context": schemas.declared(session.fields.request),
                "candidate_fields": schemas.declared(session.fields.candidate),
                "event_fields": schemas.declared(session.fields.event),
            }
        return JSONResponse(facts)

    @app.get("/healthz", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def healthz() -> JSONResponse:
        """The process is alive, and all its background loops run."""
        if wrong := server.health.problem():
            return JSONResponse({"status": "failed", "detail": wrong}, 503)
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def readyz() -> JSONResponse:
        """The model is loaded and warm, and the server takes requests and events."""
        if wrong := server.health.problem():
            return JSONResponse({"status": "failed", "detail": wrong}, 503)
        if releases.failure is not None:
            return JSONResponse({"status": "failed", "detail": "the release cannot be loaded; see the log"}, 503)
        if server.is_stopping:
            return JSONResponse({"status": "stopping", "detail": "the server is about to stop"}, 503)
        is_ready = releases.session is not None
        return JSONResponse({"status": "ready" if is_ready else "loading"}, status_code=200 if is_ready else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics_text() -> Response:
        """Counters and latencies, in the text format of Prometheus."""
        metrics.show_model(releases.release.name, releases.release.version)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
