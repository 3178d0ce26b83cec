"""How a server stops: first it says so, to whoever asks, then it drains."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from types import FrameType

import uvicorn


class Leaving(uvicorn.Server):
    """The web server, which takes its leave before it stops: for a while it answers, and says not to come again."""

    def __init__(self, config: uvicorn.Config, *, leave_s: float, on_leave: Callable[[], None]) -> None:
        """Prepare.

        Args:
            config: of `web_config`.
            leave_s: how long that while is, after SIGTERM; Ctrl-C, or another signal, ends it.
            on_leave: called when it begins.
        """
        super().__init__(config)
        self._leave_s, self._on_leave, self._left_at = leave_s, on_leave, math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave, or stop."""
        if sig == signal.SIGTERM and self._leave_s and self._left_at == math.inf:
            self._left_at = time.monotonic() + self._leave_s
            self._on_leave()
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop now."""
        if time.monotonic() >= self._left_at:
            self.should_exit = True
        return await super().on_tick(counter)
