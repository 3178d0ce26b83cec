"""One look at the data: is a run due, and why, or why not."""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from local import run_layout
from local.commands.durations import said
from local.prepare import data_version, find_data
from lrm import formats
from lrm.features.datasets.prepare import name_of
from lrm.record import Metrics, read_records

SUCCEEDED, FAILED, STOPPED, RUNNING = "succeeded", "failed", "stopped", "running"
SUMMARY = "summary.json"
FIRST_RETRY, LAST_RETRY = timedelta(minutes=5), timedelta(hours=6)
"""From a failure that passes by itself to the next try: doubled with each failure in a row, up to the second."""
SKEW = timedelta(hours=1)
"""How far clocks may differ. What is recorded beyond that in the future was recorded by a clock that was wrong."""


class Run(NamedTuple):
    """The last run of a data folder."""

    run_id: str
    data_version: str
    state: str
    ended: datetime | None
    """UTC; None where it never did, or a wrong clock says when."""
    n_failures: int = 0
    """Failures in a row, this one the last, on the same data; 0 where it did not fail, or of what does not pass."""


class Look(NamedTuple):
    """What a look found."""

    is_due: bool
    why: str
    is_failed: bool = False
    """The last run failed, and nothing is done about it now."""


def look(asked: argparse.Namespace, seen: dict[tuple[str, str], Look]) -> Look:
    """Look at the data.

    Args:
        asked: the options of `watch`.
        seen: what earlier looks found where drift was measured, which takes a while, by the version of the data and of
            the champion; added to.

    Raises:
        LrmError: the data cannot be found or read.
    """
    data, feature_repo = find_data(asked.data, asked.data_root)
    now, version = datetime.now(UTC), data_version(data)
    last = last_run(asked.runs, name_of(data), now=now)
    found = due(version, last, now=now, cooldown=asked.cooldown)
    if found.is_due and asked.on_drift and last is not None and last.state != STOPPED and last.data_version != version:
        champion = _champion(asked, name_of(data))
        compared = version, champion["version"]
        if compared not in seen:
            drifted, n_compared = drift(data, feature_repo, champion["bundle"])
            seen[compared] = on_drift(drifted, n_compared, least=asked.on_drift)
        found = seen[compared]
    has_failed = last is not None and last.state == FAILED
    return found._replace(is_failed=True) if has_failed and not found.is_due else found


def due(version: str, last: Run | None, *, now: datetime, cooldown: timedelta) -> Look:
    """Whether the data alone ask for a run.

    Args:
        version: of the data now.
        last: the last run.
        now: UTC.
        cooldown: from the end of a run to the next.
    """
    if last is None:
        return Look(True, "there was none yet")
    if last.state == RUNNING:
        return Look(False, f"{last.run_id} is under way")
    if last.state == STOPPED:
        return Look(True, f"{last.run_id} was stopped before it ended; its completed steps are reused")
    if last.data_version == version and last.n_failures:
        return _again(last, now)
    if last.data_version == version:
        failed = ", which failed on these data" if last.state == FAILED else ""
        return Look(False, f"no new data since {last.run_id}{failed}")
    if last.ended is not None and now < last.ended + cooldown:
        until = f"{last.ended + cooldown:%Y-%m-%d %H:%M} UTC"
        ended = f"{last.run_id} ended {said(now - last.ended)} ago"
        return Look(False, f"there are new data, but {ended}, and the cooldown lasts until {until}")
    return Look(True, f"there are new data since {last.run_id}")


def _again(last: Run, now: datetime) -> Look:
    """Whether a run that failed of what passes by itself is tried again now."""
    wait = min(FIRST_RETRY * 2 ** min(last.n_failures - 1, 16), LAST_RETRY)
    why = f"{last.run_id} failed of what passes by itself"
    if last.ended is None or now >= last.ended + wait:
        return Look(True, f"{why}, and is tried again")
    return Look(False, f"{why}, and is tried again after {last.ended + wait:%Y-%m-%d %H:%M} UTC")


def on_drift(drifted: list[str] | None, n_compared: int, *, least: int) -> Look:
    """Whether drift asks for a run; `drifted` is None where there is no champion to compare with."""
    if drifted is None:
        return Look(True, "there are new data, and no champion whose data they could be compared with")
    found = f"{len(drifted)} of {n_compared} signals have drifted"
    named = f": {', '.join(drifted)}" if drifted else ""
    if len(drifted) >= least:
        return Look(True, f"there are new data, and {found}{named}")
    return Look(False, f"there are new data, but {found}{named}; at least {least} asked for")


def _champion(asked: argparse.Namespace, name: str) -> Metrics:
    """`version` and `bundle` of the champion, both "" where there is none."""
    from lrm.registry.run import resolve

    own = asked.state.resolve() / "mlflow.db"
    if asked.registry or own.is_file():
        return resolve(asked.registry or f"sqlite:///{own}", name)
    return {"version": "", "bundle": ""}


def drift(data: Path, feature_repo: Path, champion: str) -> tuple[list[str] | None, int]:
    """The signals whose new rows have drifted from what the champion was trained on, and how many were compared.

    Args:
        data: folder of the data.
        feature_repo: folder of the feature definitions.
        champion: folder of the champion's bundle; "" for none, of which nothing has drifted (None).
    """
    from lrm.features.run import retrieve_features
    from lrm.features.tables import read_declared
    from lrm.validation.run import drift_since

    if not champion:
        return None, 0
    bundle = Path(champion)
    known_until = json.loads((bundle / "manifest.json").read_text())["as_of"]
    with tempfile.TemporaryDirectory() as folder:
        retrieve_features(data, feature_repo, Path(folder, "examples"))
        rows = drift_since(Path(folder, "examples"), bundle / "statistics.json", known_until)
    read = {signal.name for signal in read_declared(bundle)}
    rows = [row for row in rows if row["signal"] in read]
    return list(dict.fromkeys(row["signal"] for row in rows if row["drifted"])), len({row["signal"] for row in rows})


def last_run(runs: Path, name: str, *, now: datetime) -> Run | None:
    """The last run of a data folder of that name, but for runs of the past.

    A run that a wrong clock has put into the future counts as older than all others: it would be the last for ever.
    """
    found = [
        (run_dir, told) for run_dir, told in run_layout.asked_of(runs) if told["data"] == name and not told["as_of"]
    ]
    found.sort(key=lambda run: not _is_ahead(run[1].get("started"), now))
    if not found:
        return None
    run_dir, told = found[-1]
    version, summary = told["parameters"]["data_version"], run_dir / SUMMARY
    ended = datetime.fromtimestamp(summary.stat().st_mtime, UTC) if summary.is_file() else None
    if ended is not None and ended > now + SKEW:
        ended = None
    same = takewhile(lambda run: run[1]["parameters"]["data_version"] == version, reversed(found))
    n_failures = sum(1 for _ in takewhile(lambda run: _failed_of_what_passes(run[0]), same))
    return Run(told["run_id"], version, _state(run_dir), ended, n_failures)


def _is_ahead(started: str | None, now: datetime) -> bool:
    return started is not None and datetime.fromisoformat(started) > now + SKEW


def _failed_of_what_passes(run_dir: Path) -> bool:
    """Whether a run failed of a fault that may pass though nobody does anything, as its step has recorded it."""
    if _state(run_dir) != FAILED:
        return False
    return any((record["error"] or {}).get("passes") for record in read_records(run_dir).values())


def _state(run_dir: Path) -> str:
    """How a run ended.

    One that was told to stop, or went down with all of its processes, has not failed on its data. One of which a step
    was killed has: most often it took more memory than there is, and would again.
    """
    summary = run_layout.content_of(run_dir / SUMMARY)
    if not summary or formats.difference(summary, formats.SUMMARY):
        return RUNNING if run_layout.is_running(run_dir) else STOPPED
    if summary["status"] == SUCCEEDED:
        return SUCCEEDED
    return STOPPED if (run_dir / run_layout.INTERRUPTED).is_file() else FAILED
