"""An online store on the network may not answer for a while: requests are answered without it, and say so."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable
from typing import TypeVar

from lrm.errors import StoreError
from lrm.serving.logs import log

T = TypeVar("T")
PAUSE_S = 1.0
"""Seconds for which a store that did not answer is left alone, so that nobody else waits for it meanwhile."""


class Outage:
    """Whether the online store answers, as all know who ask it."""

    def __init__(self) -> None:
        """It does, as far as is known."""
        self.n_failed = 0
        self._until = float("-inf")

    @property
    def is_now(self) -> bool:
        """Whether the store did not answer a moment ago."""
        return clock.monotonic() < self._until

    def asking(self, ask: Callable[[], T]) -> T:
        """What the store answers.

        Raises:
            StoreError: it does not, or did not a moment ago and was not asked again.
        """
        if self.is_now:
            raise StoreError("the online store did not answer a moment ago")
        try:
            return ask()
        except StoreError as error:
            self.n_failed += 1
            self._until = clock.monotonic() + PAUSE_S
            log("the online store does not answer", level=logging.WARNING, detail=str(error)[:500])
            raise
