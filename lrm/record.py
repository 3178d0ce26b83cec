"""What a step leaves for the report: its state, times, memory, metrics and the files worth showing.

A door decorated with `recorded` writes `record.json` into its own output folder, so that the record travels with the
artifact and survives caching, and copies it with the kept files to `steps/<step>/` of the run's folder for the report.
A step that starts also copies the records of its inputs there, and those of their inputs, marked `reused` where that
step did not run this time. A door that meets a fault which passes by itself, such as a locked database, begins again a
few times (`lrm.faults`); a fault of any other kind is recorded with what a person can do about it.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec

from lrm.faults import advice, passes, patiently
from lrm.process_environment import spare_loopback
from lrm.storage import write_json

P = ParamSpec("P")
Metrics = dict[str, Any]
RECORD = "record.json"
RUN_DIR = "LRM_RUN_DIR"
"""The run's folder, where one process starts all steps."""
RUNS_ROOT, RUN_ID = "LRM_RUNS_ROOT", "LRM_RUN_ID"
"""The folder of all runs and this run's id, which a cluster knows apart."""


def recorded(
    step: str, *, output: str, keep: tuple[str, ...] = ()
) -> Callable[[Callable[P, Metrics]], Callable[P, Metrics]]:
    """Record a door's work.

    Args:
        step: the pipeline step's name, as in `components/`.
        output: the door's parameter that names its output folder (the door finds it made).
        keep: files of that folder which the report shows; copied if present, also after a failure.
    """

    def decorate(door: Callable[P, Metrics]) -> Callable[P, Metrics]:
        @functools.wraps(door)
        def run(*args: P.args, **kwargs: P.kwargs) -> Metrics:
            spare_loopback()
            given = inspect.signature(door).bind(*args, **kwargs).arguments
            folder = Path(given.pop(output))
            folder.mkdir(parents=True, exist_ok=True)
            inputs = [path for path in given.values() if isinstance(path, Path) and (path / RECORD).is_file()]
            for path in inputs:
                _publish(path, reused=True)
            record: dict[str, Any] = {
                "step": step,
                "state": "running",
                "started": datetime.now(UTC).isoformat(),
                "files": list(keep),
                "inputs": [str(path) for path in inputs],
                "metrics": {},
                "error": None,
            }
            _save(folder, record)
            start, cpu = time.perf_counter(), _cpu_seconds()
            try:
                record["metrics"] = metrics = patiently(lambda: door(*args, **kwargs))
                record["state"] = "succeeded"
                return metrics
            except BaseException as error:
                record["state"] = "failed"
                told = {"type": type(error).__name__, "message": _told(error, folder)}
                record["error"] = told | {"passes": passes(error)}
                raise
            finally:
                record["seconds"] = round(time.perf_counter() - start, 3)
                record["cpu_seconds"] = round(_cpu_seconds() - cpu, 3)
                record["peak_memory_mb"] = round(_peak_memory_mb(), 1)
                _save_last(folder, record)

        return run

    return decorate


def current_run() -> Path | None:
    """The folder of the run that this process is a step of, if it is one."""
    if folder := os.environ.get(RUN_DIR):
        return Path(folder)
    root, run_id = os.environ.get(RUNS_ROOT), os.environ.get(RUN_ID)
    return Path(root, run_id) if root and run_id else None


def run_id() -> str:
    """The id of the run that this process is a step of, "" where it is none."""
    run_dir = current_run()
    return run_dir.name if run_dir else ""


def read_records(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Every record of a run by step name, in the order in which the steps started."""
    records = [json.loads(path.read_text()) for path in run_dir.glob(f"steps/*/{RECORD}")]
    return {record["step"]: record for record in sorted(records, key=lambda record: record["started"])}


def _save(folder: Path, record: dict[str, Any]) -> None:
    _write(folder / RECORD, record)
    _publish(folder, reused=False)


def _told(error: BaseException, folder: Path) -> str:
    """The error's message, with what to do about a fault at the end of its first line: a terminal shows no more."""
    first, newline, rest = str(error).partition("\n")
    return "; ".join(part for part in (first, advice(error, folder)) if part) + newline + rest


def _save_last(folder: Path, record: dict[str, Any]) -> None:
    """Save the record; where its folder takes nothing more, as on a full disk, tell the error where one can."""
    try:
        _save(folder, record)
    except OSError:
        if record["error"] is None:
            raise
        print(f"{record['step']}: {record['error']['type']}: {record['error']['message']}", file=sys.stderr, flush=True)
        run_dir = current_run()
        if run_dir is not None:
            with suppress(OSError):
                _write(run_dir / "steps" / record["step"] / RECORD, record)


def _publish(folder: Path, *, reused: bool) -> None:
    run_dir, source = current_run(), folder / RECORD
    if run_dir is None or not source.is_file():
        return
    record = json.loads(source.read_text())
    target = run_dir / "steps" / record["step"]
    if reused and (target / RECORD).exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in record["files"]:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    if reused:
        record["state"] = "reused"
        for path in record["inputs"]:
            _publish(Path(path), reused=True)
    _write(target / RECORD, record)


def _write(path: Path, record: dict[str, Any]) -> None:
    write_json(path, record, default=str)


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_memory_mb() -> float:
    """Largest resident set of this process, in MB (Linux reports kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
