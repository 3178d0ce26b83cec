"""Structured logs: one JSON object a line on standard output. No line names a user or repeats what a caller sent."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("lrm.serving")
_FACTS = "facts"
MOST_CAUSES = 10


class JsonLines(logging.Formatter):
    """A record as `time`, `level`, `message` and what else the caller said of it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, _FACTS, {})
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            line["error"] = self.formatException(record.exc_info) if record.name == LOGGER.name else stack_of(error)
        return json.dumps(line, default=str)


def log(message: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Write one line."""
    LOGGER.log(level, message, exc_info=error, extra={_FACTS: facts})


def stack_of(error: BaseException) -> str:
    """Where an error came from and of which kinds it and its causes are; their words may hold what a caller sent."""
    kinds: list[str] = []
    frames = traceback.format_tb(error.__traceback__)
    one: BaseException | None = error
    while one is not None and len(kinds) < MOST_CAUSES:
        kinds.append(type(one).__name__)
        one = one.__cause__ or one.__context__
    return f"{''.join(frames)}{' because of '.join(kinds)}"


def start_logs() -> None:
    """Send this server's lines, and warnings of the web server and the event loop, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    for name, level in (("lrm.serving", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
