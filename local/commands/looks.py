"""One look at the data: is a run due, and why, or why not."""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from local import kept
from local.commands.spans import said
from local.prepare import data_version, find_data
from lrm.features.datasets.prepare import name_of

SUCCEEDED, FAILED, STOPPED, RUNNING = "succeeded", "failed", "stopped", "running"


class Run(NamedTuple):
    """The last run of a data folder."""

    run_id: str
    data_version: str
    state: str
    ended: datetime | None
    """UTC; None where it never did."""


class Look(NamedTuple):
    """What a look found."""

    is_due: bool
    why: str


def look(asked: argparse.Namespace, seen: dict[str, Look]) -> Look:
    """Look at the data.

    Args:
        asked: the options of `watch`.
        seen: what earlier looks found of a data version whose drift was measured, which takes a while; added to.

    Raises:
        LrmError: the data cannot be found or read.
    """
    data, feature_repo = find_data(asked.data, asked.data_root)
    version, last = data_version(data), last_run(asked.runs, name_of(data))
    found = due(version, last, now=datetime.now(UTC), cooldown=asked.cooldown)
    if not found.is_due or not asked.on_drift or last is None or last.state == STOPPED:
        return found
    if version not in seen:
        drifted, n_compared = drift(data, feature_repo, state=asked.state.resolve(), name=name_of(data))
        seen[version] = on_drift(drifted, n_compared, least=asked.on_drift)
    return seen[version]


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
    if last.data_version == version:
        failed = ", which failed on these data" if last.state == FAILED else ""
        return Look(False, f"no new data since {last.run_id}{failed}")
    if last.ended is not None and now < last.ended + cooldown:
        until = f"{last.ended + cooldown:%Y-%m-%d %H:%M} UTC"
        ended = f"{last.run_id} ended {said(now - last.ended)} ago"
        return Look(False, f"there are new data, but {ended}, and the cooldown lasts until {until}")
    return Look(True, f"there are new data since {last.run_id}")


def on_drift(drifted: list[str] | None, n_compared: int, *, least: int) -> Look:
    """Whether drift asks for a run; `drifted` is None where there is no champion to compare with."""
    if drifted is None:
        return Look(True, "there are new data, and no champion whose data they could be compared with")
    found = f"{len(drifted)} of {n_compared} signals have drifted"
    named = f": {', '.join(drifted)}" if drifted else ""
    if len(drifted) >= least:
        return Look(True, f"there are new data, and {found}{named}")
    return Look(False, f"there are new data, but {found}{named}; at least {least} asked for")


def drift(data: Path, feature_repo: Path, *, state: Path, name: str) -> tuple[list[str] | None, int]:
    """The signals whose new rows have drifted from what the champion was trained on, and how many were compared."""
    from lrm.features.run import retrieve_features
    from lrm.registry.run import resolve
    from lrm.validation.run import drift_since

    registry = state / "mlflow.db"
    champion = resolve(f"sqlite:///{registry}", name) if registry.is_file() else {"bundle": ""}
    if not champion["bundle"]:
        return None, 0
    bundle = Path(champion["bundle"])
    known_until = json.loads((bundle / "manifest.json").read_text())["as_of"]
    with tempfile.TemporaryDirectory() as folder:
        retrieve_features(data, feature_repo, Path(folder, "examples"))
        rows = drift_since(Path(folder, "examples"), bundle / "statistics.json", known_until)
    return list(dict.fromkeys(row["signal"] for row in rows if row["drifted"])), len({row["signal"] for row in rows})


def last_run(runs: Path, name: str) -> Run | None:
    """The last run of a data folder of that name, but for runs of the past."""
    for run_dir, told in reversed(kept.asked_of(runs)):
        if told["data"] != name or told["as_of"]:
            continue
        version = told["parameters"]["data_version"]
        summary = run_dir / "summary.json"
        if not (found := kept.content_of(summary)):
            return Run(told["run_id"], version, RUNNING if kept.is_running(run_dir) else STOPPED, None)
        ended = datetime.fromtimestamp(summary.stat().st_mtime, UTC)
        return Run(told["run_id"], version, _state(found), ended)
    return None


def _state(summary: dict[str, object]) -> str:
    """How a run ended: one that was interrupted has not failed on its data."""
    steps = summary["steps"]
    assert isinstance(steps, list)
    if summary["status"] == SUCCEEDED:
        return SUCCEEDED
    return STOPPED if "interrupted" in [step["state"] for step in steps] else FAILED
