"""Stop gracefully: say so to callers for a while, then finish requests in progress."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from types import FrameType

import uvicorn


class GracefulServer(uvicorn.Server):
    """A uvicorn server that still answers for a while after SIGTERM, and tells callers not to come again."""

    def __init__(self, config: uvicorn.Config, *, delay_s: float, on_stop: Callable[[], None]) -> None:
        """Prepare.

        Args:
            config: from `web_config`.
            delay_s: seconds to answer after SIGTERM; Ctrl-C, or another signal, ends the delay.
            on_stop: called when the delay begins.
        """
        super().__init__(config)
        self._delay_s, self._on_stop, self._stop_at = delay_s, on_stop, math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the delay, or stop."""
        if sig == signal.SIGTERM and self._delay_s and self._stop_at == math.inf:
            self._stop_at = time.monotonic() + self._delay_s
            self._on_stop()
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop now; uvicorn asks ten times a second."""
        if time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)
