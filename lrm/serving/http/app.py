"""The HTTP application of a server: its routes behind its middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from lrm.serving.http.errors import add_error_handlers
from lrm.serving.http.middleware import request_middleware
from lrm.serving.http.routes import (
    PREDICT_PATHS,
    add_event_route,
    add_predict_routes,
    declare_api_key,
)
from lrm.serving.http.server import Server
from lrm.serving.http.status_routes import add_status_routes


def make_app(server: Server) -> FastAPI:
    """Return the application of a server; its start-up starts the server's background work."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        server.start()
        yield
        await server.stop()

    # The page at /docs loads nothing from other hosts.
    app = FastAPIOffline(
        redoc_url=None,
        title="Token Factory",
        description=f"Recommendations of {server.releases.release.name}.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.add_middleware(
        request_middleware,
        metrics=server.metrics,
        limits=server.options.limits,
        rejections=server.rejections,
        is_full=lambda path: path in PREDICT_PATHS and server.predictions.is_full,
        is_stopping=lambda: server.is_stopping,
    )
    add_error_handlers(app, server)
    add_predict_routes(app, server)
    add_event_route(app, server)
    add_status_routes(app, server)
    if server.options.limits.api_key:
        declare_api_key(app)
    return app
