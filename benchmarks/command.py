"""What every benchmark's command line shares: numbers that must be positive, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from lrm.errors import LrmError


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; what a user can mend is said in one line, and everything else keeps its traceback."""
    try:
        main()
    except LrmError as error:
        sys.exit(f"error: {error}")
