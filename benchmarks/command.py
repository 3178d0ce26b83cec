"""What every benchmark's command line shares: numbers that must be positive, and errors in one line."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

from lrm.errors import LrmError


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def rate(text: str) -> float:
    """An argument that measures something."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; what a user can mend is said in one line, and everything else keeps its traceback."""
    try:
        main()
    except LrmError as error:
        sys.exit(f"error: {error}")
