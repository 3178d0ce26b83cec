"""`python pipeline.py watch`: retrain when there is new data, or when the data has drifted."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from local.commands.durations import said, span
from local.commands.run_options import add_data_options, add_place_options, polite_kills, run_workflow
from local.commands.watch_decision import Look, look
from local.exit_codes import FAILED, SUCCEEDED, WORDS
from local.lock import BusyError, only_one
from lrm.errors import LrmError
from lrm.faults import passes

HELP = "look at the data now and then, and retrain when it is new or has drifted"
DESCRIPTION = """Look at the data now and then, and run the workflow when they are new: when the content of the data
folder is not that of the last run. With --on-drift, new data alone are no reason: their signals must also have moved
from what the champion was trained on. Each look says in a line why a run was started or not. One run at a time. Ctrl-C
ends the watch, and a run under way with it. A run that was stopped, or went down with its machine, goes on at the next
look, whatever --cooldown and --on-drift say; so does one that failed of what passes by itself, such as a service that
did not answer or a step that hung, after 5 minutes, then 10, 20 and so on, up to 6 hours. One that failed of anything
else, or of which a step was killed, is not tried again until there are new data. Until then every look fails."""
EPILOG = """examples:
  python pipeline.py watch --every 1d                     once a day, if there are new data
  python pipeline.py watch --every 1h --on-drift 3        when at least three signals of the new data have drifted
  python pipeline.py watch --once --cooldown 12h          one look, for a timer of your own such as cron
"""
LOCK = ".watch.lock"


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "watch",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--every", type=span, default="1d", metavar="SPAN", help="between looks (default: %(default)s)")
    parser.add_argument(
        "--on-drift",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="retrain only if at least N signals of the new rows have drifted (N: 1 where it is left out)",
    )
    parser.add_argument(
        "--cooldown",
        type=span,
        default="0s",
        metavar="SPAN",
        help="from the end of a run to the next at least (default: %(default)s)",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="look once; the exit code is that of the run (`run --help`); without one, 1 while the last run's failure "
        "stands or the data cannot be looked at",
    )
    add_data_options(parser, preset="default")
    add_place_options(parser)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Watch until interrupted; the exit code of the last look where it was the only one."""
    seen: dict[tuple[str, str], Look] = {}
    with polite_kills():
        try:
            while True:
                code = _turn(asked, seen)
                if asked.once:
                    return code
                time.sleep(asked.every.total_seconds())
        except KeyboardInterrupt:
            _say("stopped")
            return 0


def _turn(asked: argparse.Namespace, seen: dict[tuple[str, str], Look]) -> int:
    """One look, and the run that it asks for; returns the exit code."""
    try:
        with only_one(asked.runs / LOCK) as held:
            if held.left_by:
                _say(f"took over from process {held.left_by}, which ended without a word")
            found = look(asked, seen)
            if not found.is_due:
                _say(f"no run: {found.why}")
                return FAILED if found.is_failed else SUCCEEDED
            _say(f"run: {found.why}")
            code = run_workflow(asked, runs=asked.runs, state=asked.state, hold=(held.file,))
            _say(f"the run ended {WORDS.get(code, f'with status {code}')}; next look in {said(asked.every)}")
            return code
    except BusyError as error:
        _say(f"no run: one is under way already ({error})")
        return SUCCEEDED
    except LrmError as error:
        _say(f"no run: {error}")
        return FAILED
    except Exception as error:
        if not (isinstance(error, OSError) or passes(error)):
            raise
        _say(f"no run: {type(error).__name__}: {error}")
        return FAILED


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC  {text}", flush=True)
