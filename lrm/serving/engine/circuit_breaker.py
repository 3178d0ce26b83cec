"""An online store on the network may not answer for a while: requests are answered without it, and say so."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable
from typing import TypeVar

from lrm.errors import StoreError
from lrm.serving.logs import log

T = TypeVar("T")
OPEN_S = 1.0
"""Seconds for which a store that did not answer is left alone, so that nobody else waits for it meanwhile."""
STORE_ERRORS = {"OSError", "ConnectionError", "TimeoutError", "OperationalError"}
"""Kinds of errors, of any client, that tell of a store or of the way there."""


class CircuitBreaker:
    """Whether the online store answers, as all know who ask it."""

    def __init__(self) -> None:
        """It does, as far as is known."""
        self.n_failed = 0
        self._until = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether the store did not answer a moment ago."""
        return clock.monotonic() < self._until

    def asking(self, ask: Callable[[], T]) -> T:
        """What the store answers.

        Raises:
            StoreError: it does not, or did not a moment ago and was not asked again.
        """
        if self.is_open:
            raise StoreError("the online store did not answer a moment ago")
        try:
            return ask()
        except StoreError as error:
            self.n_failed += 1
            self._until = clock.monotonic() + OPEN_S
            log("the online store does not answer", level=logging.WARNING, detail=_detail(error))
            raise


def _detail(error: StoreError) -> str:
    """What a store said of itself; else of which kind the error is, as no key may be in a log."""
    cause = error.__cause__
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return str(error)[:500] if cause is None or kinds & STORE_ERRORS else type(cause).__name__
