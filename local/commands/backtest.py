"""`python pipeline.py backtest`: a year of retraining, simulated with the real workflow."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from local.commands.spans import said, span
from local.commands.windows import completed_run, later, retold
from local.prepare import PROJECT, find_data
from lrm.errors import DataError, LrmError
from lrm.features.datasets.prepare import DATASET
from lrm.record import Metrics

HELP = "simulate a year of retraining on past data, and show what came of it"
DESCRIPTION = """Retrain again and again on past data, as if each window's end were today: the whole workflow, gate and
roll-out included, with a registry and a state of its own. Every decision is then held against the window that came
next, which the gate could not see. A backtest that was stopped continues where it was."""
EPILOG = """examples:
  python pipeline.py backtest                         eight windows, one every second week, preset tiny
  python pipeline.py backtest --every 4w --windows 4  a monthly schedule
"""
REASON = "a backtest: each window's end stands for today, and the registry is the backtest's own"
FACTS, PAGE = "backtest.json", "backtest.html"


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "backtest",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="complete-journey", metavar="NAME|PATH", help="(default: %(default)s)")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="files of built-in data that you have downloaded")
    parser.add_argument("--windows", type=_count, default=8, metavar="N", help="trainings (default: %(default)s)")
    parser.add_argument(
        "--every", type=span, default="2w", metavar="SPAN", help="between two trainings (default: %(default)s)"
    )
    parser.add_argument("--preset", default="tiny", metavar="NAME", help="of lrm/config.py (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every random draw (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/backtest"), metavar="DIR", help="kept here (default: %(default)s)"
    )
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Run what is missing of the backtest, and write its page; the exit code of a window that failed."""
    data, _ = find_data(asked.data, asked.data_root)
    told = _begun(asked, data)
    ends = window_ends(data, n=asked.windows, every=asked.every)
    for number, end in enumerate(ends, start=1):
        print(f"\nWindow {number} of {len(ends)}: the data end at {end.isoformat()}", flush=True)
        runs = asked.folder / "runs"
        if completed_run(runs, end) is None and (failed := _run(asked, end)):
            print(f"\nWindow {number} did not end well; start the same command again to continue", file=sys.stderr)
            return failed
        windows = told["windows"]
        if len(windows) < number:
            windows.append(retold(runs, end))
        if number > 1 and windows[number - 2]["later"] is None and windows[number - 2]["gain"] is not None:
            registry = f"sqlite:///{(asked.folder / 'state/mlflow.db').resolve()}"
            windows[number - 2]["later"] = later(
                windows[number - 2],
                runs,
                end,
                asked.folder / "later",
                registry,
                told["settings"]["data"],
                preset=asked.preset,
                seed=asked.seed,
            )
        _write(asked.folder, told)
    from lrm.reporting.backtest import in_words

    print(f"\n{in_words(told)}\nPage: {asked.folder / PAGE}")
    return 0


def window_ends(data: Path, *, n: int, every: timedelta) -> list[datetime]:
    """The instants at which the windows end: the last at the end of the data, the others `every` before.

    Raises:
        DataError: there is nothing to step through.
    """
    dataset = json.loads((data / DATASET).read_text())
    if dataset["protocol"] != "temporal":
        raise DataError(
            f"{dataset['name']} is cut by {dataset['protocol']}, not by time, so a year of retraining cannot be "
            "simulated on it; take data with the protocol temporal"
        )
    end = datetime.fromisoformat(dataset["as_of"])
    return [end - every * back for back in reversed(range(n))]


def _begun(asked: argparse.Namespace, data: Path) -> Metrics:
    """What the folder holds of this backtest so far.

    Raises:
        LrmError: it holds another one.
    """
    settings = {
        "data": json.loads((data / DATASET).read_text())["name"],
        "every": said(asked.every),
        "windows": asked.windows,
        "preset": asked.preset,
        "seed": asked.seed,
    }
    path = asked.folder / FACTS
    if not path.is_file():
        return {"settings": settings, "windows": []}
    told: Metrics = json.loads(path.read_text())
    if told["settings"] != settings:
        raise LrmError(
            f"{asked.folder} holds another backtest ({told['settings']}); asked for {settings}: name another --folder, "
            "or remove that one"
        )
    return told


def _run(asked: argparse.Namespace, end: datetime) -> int:
    """One run of the workflow; its exit code."""
    command = [sys.executable, str(PROJECT / "pipeline.py"), "run", "--data", asked.data]
    command += ["--data-root", str(asked.data_root)] if asked.data_root else []
    command += ["--preset", asked.preset, "--seed", str(asked.seed)]
    command += ["--as-of", end.isoformat(), "--allow-backfill", REASON]
    command += ["--runs", str(asked.folder / "runs"), "--state", str(asked.folder / "state")]
    return subprocess.run(command).returncode


def _write(folder: Path, told: Metrics) -> None:
    from lrm.reporting.backtest import render

    for name, content in ((FACTS, json.dumps(told, indent=1) + "\n"), (PAGE, render(told))):
        partial = folder / f".{name}.partial"
        partial.write_text(content)
        partial.replace(folder / name)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be a whole number, two or more, got {text!r}")
    return int(text)
