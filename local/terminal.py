"""What the terminal shows while a workflow runs: a line as a step starts, and one as it ends.

Both are read from the records that the steps leave in the run's folder, so the view needs no word from the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrm.record import read_records

MARKS = {"running": "start", "succeeded": "done", "reused": "reused", "failed": "FAILED"}
POLL_SECONDS = 0.2
N_METRICS = 4


def follow(
    run_dir: Path,
    is_running: Callable[[], bool],
    say: Callable[[str], None],
    check: Callable[[dict[str, dict[str, Any]]], None] = lambda _: None,
) -> None:
    """Say each change of a step's state, until the workflow has ended and all was said.

    Args:
        run_dir: the run's folder.
        is_running: whether the workflow goes on.
        say: takes a line.
        check: is shown the records while the workflow goes on; what it raises ends this.
    """
    said: dict[str, str] = {}
    while True:
        is_last = not is_running()
        records = read_records(run_dir)
        for name, record in records.items():
            if said.get(name) != record["state"]:
                said[name] = record["state"]
                say(line(record))
        if is_last:
            return
        check(records)
        time.sleep(POLL_SECONDS)


def line(record: dict[str, Any]) -> str:
    """One step's state, and once it has ended its seconds and first metrics, or its error."""
    state = record["state"]
    head = f"  {MARKS[state]:<7} {record['step']:<23}"
    if state == "running":
        return head.rstrip()
    told = [f"{name} {_value(value)}" for name, value in record["metrics"].items() if _is_short(value)][:N_METRICS]
    error = record["error"]
    tail = f"{error['type']}: {error['message'].partition(chr(10))[0]}" if error else ", ".join(told)
    seconds = "" if state == "reused" or record["seconds"] is None else f"{record['seconds']:.1f} s"
    return f"{head} {seconds:>9}  {tail}".rstrip()


def _is_short(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and 0 < len(value) <= 16)


def _value(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
