"""What a run is told on the command line, and a run that another command starts, in a process of its own."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.commands.durations import span
from local.prepare import DATA_NAMES, PROJECT
from lrm.presets.table import preset_table

STEP_TIMEOUT = "1d"


class _PresetAction(argparse.Action):
    """Take the name of a preset; `list` prints the table of presets and ends, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Store the name."""
        if values == "list":
            print(preset_table())
            parser.exit()
        setattr(namespace, self.dest, values)


def add_data_options(parser: Any, *, preset: str) -> None:
    """Add what a run is told about data and configuration."""
    parser.add_argument(
        "--data",
        default="complete-journey",
        metavar="NAME|PATH",
        help=f"built-in data ({', '.join(DATA_NAMES)}) or a data folder of yours (default: %(default)s)",
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder with the files of built-in data that you have downloaded (default: $LRM_DATA_ROOT)",
    )
    parser.add_argument(
        "--preset",
        action=_PresetAction,
        default=preset,
        metavar="NAME",
        help="name of a configuration, or `list` to explain them all (default: %(default)s)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of every random draw (default: %(default)s)")
    parser.add_argument(
        "--image",
        default="",
        metavar="IMAGE",
        help="run each step in a container of this image, which `make image` builds; needs Docker or podman",
    )
    add_step_timeout(parser)


def add_step_timeout(parser: Any) -> None:
    """Add how long a step may take."""
    parser.add_argument(
        "--step-timeout",
        type=span,
        default=STEP_TIMEOUT,
        metavar="SPAN",
        help="a step that takes longer is ended and has failed; 0s for no limit (default: %(default)s)",
    )


def add_place_options(parser: Any) -> None:
    """Add where a run reads and writes what outlives it, and who is told of it."""
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (default: %(default)s)"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("state"),
        metavar="DIR",
        help="model registry and online store (default: %(default)s)",
    )
    parser.add_argument(
        "--registry",
        default="",
        metavar="URI",
        help="model registry: the http:// address of an MLflow server (default: a SQLite file in --state)",
    )
    parser.add_argument(
        "--ledger",
        default="",
        metavar="URI",
        help="folder or gs://BUCKET/PATH of the promotion ledger (default: the one that the registry remembers)",
    )
    parser.add_argument(
        "--artifacts",
        default="",
        metavar="gs://BUCKET/PREFIX",
        help="where a copy of the report, the manifest and the registered bundle goes once the run has ended",
    )
    parser.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="COMMAND|URL",
        help="once a run has ended, well or not, hand its summary.json to a command, which reads it from its standard "
        "input, or post it to an http(s):// address; may be given several times; one that fails is said, no more",
    )
    parser.add_argument(
        "--detailed-exit-code",
        action="store_true",
        help="tell a kept champion (3) and warnings (4) from a promotion (0)",
    )


def run_workflow(asked: argparse.Namespace, *more: str, runs: Path, state: Path, hold: tuple[int, ...] = ()) -> int:
    """Run the workflow; an interrupt ends it as Ctrl-C does, with its report, before it is raised here.

    Args:
        asked: holds the options of `add_data_options`, and maybe those of `add_place_options`.
        more: further options of `run`.
        runs: where runs are kept.
        state: registry and releases.
        hold: open files that the run holds too: a lock outlives this process for as long as the run does.

    Returns:
        The exit code.
    """
    command = [sys.executable, str(PROJECT / "pipeline.py"), "run", *told(asked)]
    command += ["--runs", str(runs), "--state", str(state), *more]
    started = subprocess.Popen(command, pass_fds=hold, start_new_session=True)
    try:
        return started.wait()
    except KeyboardInterrupt:
        started.send_signal(signal.SIGINT)  # nothing where it has ended by itself
        started.wait()
        raise


def told(asked: argparse.Namespace) -> list[str]:
    """The options of `run` that hand on what a command was asked for; --runs and --state are left to the caller."""
    given = vars(asked)
    words = ["--data", asked.data, "--preset", asked.preset, "--seed", str(asked.seed)]
    words += ["--step-timeout", f"{asked.step_timeout.total_seconds():.0f}s"]
    words += ["--data-root", str(asked.data_root)] if asked.data_root else []
    for name in ("image", "registry", "ledger", "artifacts"):
        words += [f"--{name}", given[name]] if given.get(name) else []
    for target in given.get("notify", ()):
        words += ["--notify", target]
    return words + (["--detailed-exit-code"] if given.get("detailed_exit_code") else [])


def seed(text: str) -> int:
    """A seed, for an argument parser."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, zero or more, got {text!r}")
    return int(text)


@contextmanager
def polite_kills() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
