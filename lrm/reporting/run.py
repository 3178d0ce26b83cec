"""The door of reporting: the exit step, which runs whatever happened before it."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

from lrm import manifest
from lrm.record import recorded
from lrm.reporting import run_files, trend
from lrm.reporting.page import render
from lrm.reporting.summary import broken_steps, build
from lrm.storage import write_text

SUMMARY = "summary.json"
PAGE = "report.html"
LATEST = "latest"


@recorded("report_run", output="run_dir")
def report_run(run_dir: Path, *, state: str = "SUCCEEDED", error: str = "", failed_step: str = "") -> dict[str, Any]:
    """Write a run's `report.html` and `summary.json` from what its steps kept, and complete its manifest.

    The page of all runs, `trends/<model>.html` beside the run's folder, then shows this run too, and the link `latest`
    names it. Any file may be missing: a run that failed or was interrupted gets a report that shows it first.

    Args:
        run_dir: the run's folder; docs/artifacts.md, section 7, says what is in it.
        state: how the workflow ended, as its engine says: `lrm.reporting.summary` knows the words of both engines.
        error: the engine's own message about a failure, used where no step recorded one.
        failed_step: the step that the engine blames, if it says so.

    Returns:
        `status` (`succeeded` or `failed`), `verdict` ("" where there is none), `n_steps_failed`.
    """
    start, cpu = time.perf_counter(), time.process_time()
    files = run_files.read(run_dir)
    summary = build(files, run_id=run_dir.name, state=state, error=error, failed_step=failed_step)
    write_text(run_dir / PAGE, render(summary, files, trend=trend.link(summary, files)))
    summary["steps"][-1] |= {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    write_text(run_dir / SUMMARY, json.dumps(summary, indent=1, allow_nan=False) + "\n")
    trend.update(run_dir, summary, files)
    manifest.complete(run_dir, state=summary["status"])
    _point(run_dir.parent / LATEST, run_dir)
    return {
        "status": summary["status"],
        "verdict": summary["verdict"] or "",
        "n_steps_failed": len(broken_steps(summary)),
    }


def _point(link: Path, run_dir: Path) -> None:
    """Make `link` name the run's folder, in one step: a reader never finds it missing."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(run_dir.name, target_is_directory=True)
    partial.replace(link)
