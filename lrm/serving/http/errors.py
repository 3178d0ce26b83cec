"""Turn errors into answers: one short sentence that says what is wrong and what to send."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from lrm.errors import StoreError
from lrm.serving.engine.batching import DeadlineExceeded, Overloaded
from lrm.serving.engine.request_checks import SHOWN, shown
from lrm.serving.http import schemas
from lrm.serving.http.middleware import RETRY_AFTER_S, TOO_MANY
from lrm.serving.http.server import Server

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


def add_error_handlers(app: FastAPI, server: Server) -> None:
    """Answer every error of a route in one form."""
    rejected = server.metrics.rejected

    @app.exception_handler(RequestValidationError)
    async def explain(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["loc"] == ("body",) and (wrong := _no_object(first.get("input"), request.headers.get("content-type"))):
            return refusal(422, wrong)
        if first["type"] == "json_invalid":
            position = first["loc"][-1]
            return refusal(422, f"the body is not JSON: character {position}: {first['ctx']['error']}")
        field = ".".join(_name(part) for part in first["loc"] if part != "body") or "body"
        return refusal(422, f"{field}: {first['msg']}, got {shown(first.get('input'))}")

    @app.exception_handler(Overloaded)
    async def too_many(_request: Request, _error: Overloaded) -> JSONResponse:
        rejected.labels(TOO_MANY.reason).inc()
        return refusal(TOO_MANY.status, TOO_MANY.detail)

    @app.exception_handler(StoreError)
    async def store_down(_request: Request, _error: StoreError) -> JSONResponse:
        rejected.labels("store").inc()
        return refusal(503, "the online store does not answer, so new events cannot be kept; send them again later")

    @app.exception_handler(DeadlineExceeded)
    async def too_late(_request: Request, _error: DeadlineExceeded) -> JSONResponse:
        rejected.labels("deadline").inc()
        return refusal(504, "there was no answer in time; send it again in a moment")


def refusal(status: int, detail: str) -> JSONResponse:
    """Return an answer that says why there is no other."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if status in (429, 503, 504) else None
    return JSONResponse({"detail": detail}, status, headers)


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
