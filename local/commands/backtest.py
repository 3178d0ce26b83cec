"""`python pipeline.py backtest`: a year of retraining, simulated with the real workflow."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from local.commands.backtest_window import completed_run, later, retold
from local.commands.durations import said, span
from local.commands.run_options import add_data_options, polite_kills, run_workflow
from local.exit_codes import ENDED, INTERRUPTED
from local.prepare import find_data
from lrm.errors import DataError, LrmError
from lrm.features.datasets.prepare import DATASET
from lrm.record import Metrics
from lrm.schema import EVENT_TIME, REQUESTS
from lrm.storage import write_text

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
    add_data_options(parser, preset="tiny")
    parser.add_argument("--windows", type=_count, default=8, metavar="N", help="trainings (default: %(default)s)")
    parser.add_argument(
        "--every", type=span, default="2w", metavar="SPAN", help="between two trainings (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/backtest"), metavar="DIR", help="kept here (default: %(default)s)"
    )
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Run what is missing of the backtest, and write its page; the exit code of a window that did not end well."""
    from lrm.reporting.backtest import in_words

    data, _ = find_data(asked.data, asked.data_root)
    told = _begun(asked, data)
    ends = window_ends(data, n=asked.windows, every=asked.every)
    with polite_kills():
        try:
            for number, end in enumerate(ends, start=1):
                print(f"\nWindow {number} of {len(ends)}: the data end at {end.isoformat()}", flush=True)
                code = _window(asked, told, number, end)
                if code:
                    break
                _write(asked.folder, told)
        except KeyboardInterrupt:
            code = INTERRUPTED
    if code:
        print("\nStart the same command again to continue: what was completed is kept.", file=sys.stderr)
        return code
    print(f"\n{in_words(told)}\nPage: {asked.folder / PAGE}")
    return 0


def _window(asked: argparse.Namespace, told: Metrics, number: int, end: datetime) -> int:
    """One window: its run, if it has none yet, and what it shows of the decision before; returns the exit code."""
    runs, state, windows = asked.folder / "runs", asked.folder / "state", told["windows"]
    if completed_run(runs, end) is None:
        past = ("--as-of", end.isoformat(), "--allow-backfill", REASON)
        code = run_workflow(asked, *past, runs=runs, state=state)
        if code not in ENDED:
            return code
    if len(windows) < number:
        windows.append(retold(runs, end))
    before = windows[number - 2] if number > 1 else None
    if before and before["gain"] and before["later"] is None:
        registry = f"sqlite:///{(state / 'mlflow.db').resolve()}"
        place, name = asked.folder / "later", told["settings"]["data"]
        before["later"] = later(before, runs, end, place, registry, name, preset=asked.preset, seed=asked.seed)
    return 0


def window_ends(data: Path, *, n: int, every: timedelta) -> list[datetime]:
    """The instants at which the windows end: the last at the end of the data, the others `every` before.

    Raises:
        DataError: there is nothing to step through, or the first window has nothing to train on.
    """
    import polars as pl

    dataset = json.loads((data / DATASET).read_text())
    if dataset["protocol"] != "temporal":
        raise DataError(
            f"{dataset['name']} is cut by {dataset['protocol']}, not by time, so a year of retraining cannot be "
            "simulated on it; take data with the protocol temporal"
        )
    end = datetime.fromisoformat(dataset["as_of"])
    ends = [end - every * back for back in reversed(range(n))]
    judged = timedelta(days=dataset["validation_days"] + dataset["test_days"])
    begins = pl.scan_parquet(data / f"{REQUESTS}.parquet", glob=False).select(pl.col(EVENT_TIME).min()).collect().item()
    if ends[0] - judged <= begins:
        raise DataError(
            f"the first of {n} windows would end at {ends[0]:%Y-%m-%d}: its validation and test take {judged.days} "
            f"days, and requests begin on {begins:%Y-%m-%d}, so nothing is left to train on; ask for fewer windows"
        )
    return ends


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


def _write(folder: Path, told: Metrics) -> None:
    from lrm.reporting.backtest import render

    for name, content in ((FACTS, json.dumps(told, indent=1) + "\n"), (PAGE, render(told))):
        write_text(folder / name, content)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be a whole number, two or more, got {text!r}")
    return int(text)
