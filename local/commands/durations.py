"""Spans of time as a person types them: `45m`, `12h`, `1d`, `2w`."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def span(text: str) -> timedelta:
    """The span that a text names, for an argument parser.

    Raises:
        ArgumentTypeError: it names none.
    """
    found = re.fullmatch(r"(\d+)([smhdw])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be a number and one of {', '.join(UNITS)}, such as 1d, got {text!r}")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def said(length: timedelta) -> str:
    """A span in its largest whole unit: `3 days`, `1 hour`, `40 seconds`."""
    seconds = int(length.total_seconds())
    units = ((604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= size), (1, "second"))
    n = seconds // size
    return f"{n} {unit}{'' if n == 1 else 's'}"
