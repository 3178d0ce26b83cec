"""Progress bars for long work: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
TERMINAL = "LRM_PROGRESS_TTY"
"""Set by the command line to the terminal's device, because a step's own output is a pipe."""


def progress(items: Iterable[T], *, what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield `items` while showing how far along the work is."""
    terminal = os.environ.get(TERMINAL)
    live = terminal or sys.stderr.isatty()
    stream = open(terminal, "w") if terminal else sys.stderr  # noqa: SIM115 - closed below
    every_s = 0.2 if live else 10.0
    try:
        yield from tqdm(
            items, desc=what, total=total, unit=unit, file=stream, mininterval=every_s, leave=bool(not live)
        )
    finally:
        if terminal:
            stream.close()
