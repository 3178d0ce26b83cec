"""Whether the server does its work: what `/healthz` and `/readyz` say, and the gauge `lrm_ready`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from lrm.serving.engine.batching import Batcher
from lrm.serving.logs import log

RELEASES, ANSWERS, EVENTS = "releases", "answers", "events"
ENDS = frozenset({RELEASES})
"""Loops that may end of themselves: where nothing is followed."""
STUCK_S = 60.0
"""Seconds for which one batch may be worked on. A request is given up long before; a thread that hangs never ends."""


class Health:
    """The loops of one server."""

    def __init__(self, batchers: Mapping[str, Batcher[Any, Any]]) -> None:
        """None runs yet; `batchers` are those that work in batches, by the name of their loop."""
        self._batchers, self._loops = batchers, dict[str, asyncio.Task[None]]()
        self._is_stopping = False

    def start(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Run a loop in the background."""
        self._loops[name] = asyncio.create_task(loop)
        self._loops[name].add_done_callback(lambda task: self._ended(name, task))

    async def stop(self) -> None:
        """End all loops."""
        self._is_stopping = True
        for task in self._loops.values():
            task.cancel()
        await asyncio.gather(*self._loops.values(), return_exceptions=True)

    def problem(self) -> str:
        """What keeps the server from its work until it is started again; "" if nothing does."""
        for name, task in self._loops.items():
            if task.done() and not self._is_stopping and (name not in ENDS or _failed(task)):
                return f"the loop of {name} has ended; the log says why, and a new start is needed"
        now = asyncio.get_running_loop().time()
        for name, batcher in self._batchers.items():
            if batcher.began is not None and now - batcher.began > STUCK_S:
                return f"a batch of {name} has not ended for {now - batcher.began:.0f} s; a new start is needed"
        return ""

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if not self._is_stopping and (name not in ENDS or _failed(task)):
            error = None if task.cancelled() else task.exception()
            log("a loop has ended, the server must be started again", level=logging.CRITICAL, error=error, loop=name)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None
