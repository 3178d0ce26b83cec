"""Notice a step that hangs: nothing that a run does may take longer than its time limit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from local.commands.durations import said
from lrm.record import RECORD
from lrm.storage import write_text


class StepTimeoutError(Exception):
    """A step takes longer than it may; `step` is "" where none has begun or ended for so long."""

    def __init__(self, step: str, limit_s: float) -> None:
        self.step = step
        what = f"{step} had not ended" if step else "no step had begun or ended"
        length = said(timedelta(seconds=limit_s))
        super().__init__(f"{what} after {length}, its time limit: it was ended")


class Deadline:
    """How long ago a step last began or ended, by the clock that nobody sets."""

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count.

        Args:
            limit_s: seconds that a step may take; 0 for no limit.
            clock: tells the seconds since some instant.
        """
        self._limit_s, self._clock, self._since = limit_s, clock, clock()
        self._states: dict[str, str] = {}

    def check(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Look at the steps' records.

        Raises:
            StepTimeoutError: nothing has changed for longer than a step may take.
        """
        states = {step: str(record["state"]) for step, record in records.items()}
        if states != self._states:
            self._states, self._since = states, self._clock()
        elif self._limit_s and self._clock() - self._since > self._limit_s:
            raise StepTimeoutError(
                next((step for step, state in states.items() if state == "running"), ""), self._limit_s
            )


def record_late(run_dir: Path, late: StepTimeoutError) -> None:
    """Write into the record of a step that was ended why it was; its own last words were of an interrupt."""
    path = run_dir / "steps" / late.step / RECORD
    if not late.step or not path.is_file():
        return
    told = {"type": type(late).__name__, "message": str(late), "passes": True}
    record = json.loads(path.read_text()) | {"state": "failed", "error": told}
    write_text(path, json.dumps({"seconds": None, "cpu_seconds": None, "peak_memory_mb": None} | record) + "\n")
