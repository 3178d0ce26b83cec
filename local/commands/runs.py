"""A run of the workflow that a command starts, in a process of its own."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.prepare import PROJECT


def add_data_options(parser: Any, *, preset: str) -> None:
    """Add what a run is told about data and configuration."""
    parser.add_argument("--data", default="complete-journey", metavar="NAME|PATH", help="(default: %(default)s)")
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder with the files of built-in data that you have downloaded (default: $LRM_DATA_ROOT)",
    )
    parser.add_argument("--preset", default=preset, metavar="NAME", help="of lrm/config.py (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every random draw (default: %(default)s)")
    parser.add_argument("--image", metavar="IMAGE", help="run each step in a container of this image")


def run_workflow(asked: argparse.Namespace, *more: str, runs: Path, state: Path, hold: tuple[int, ...] = ()) -> int:
    """Run the workflow; an interrupt ends it as Ctrl-C does, with its report, before it is raised here.

    Args:
        asked: holds the options of `add_data_options`.
        more: further options of `run`.
        runs: where runs are kept.
        state: registry and releases.
        hold: open files that the run holds too: a lock outlives this process for as long as the run does.

    Returns:
        The exit code.
    """
    command = [sys.executable, str(PROJECT / "pipeline.py"), "run", "--data", asked.data]
    command += ["--data-root", str(asked.data_root)] if asked.data_root else []
    command += ["--preset", asked.preset, "--seed", str(asked.seed)]
    command += ["--image", asked.image] if asked.image else []
    command += ["--runs", str(runs), "--state", str(state), *more]
    started = subprocess.Popen(command, pass_fds=hold, start_new_session=True)
    try:
        return started.wait()
    except KeyboardInterrupt:
        started.send_signal(signal.SIGINT)  # nothing where it has ended by itself
        started.wait()
        raise


@contextmanager
def polite_kills() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
