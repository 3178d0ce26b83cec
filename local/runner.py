"""Run the workflow on this machine: start the engine, follow it, and say how it ended.

The engine (`kfp.local`) runs in a child process whose output is the run's log: the terminal stays for the view, and an
interrupt can end the child with all of its steps. The outputs of completed steps are kept in the engine's cache, keyed
by everything they depend on; a step that did not complete leaves nothing there, so nothing half-written is reused, and
what it had written is removed before the next run begins (`local.run_layout`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from local import container_runner, run_layout, subprocess_runner
from local.container_runner import Containers
from local.exit_codes import FAILED, INTERRUPTED, SUCCEEDED
from local.step_timeout import Deadline, StepTimeoutError, record_late
from local.terminal import follow
from lrm.progress import TERMINAL
from lrm.record import RUN_DIR, read_records
from lrm.reporting.run_files import STEPS
from lrm.reporting.summary import REPORT, summary_text

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, and what is taken as one: a polite kill, a closed terminal."""
PATIENCE_SECONDS = 15.0
"""How long an interrupted step may take to write its record before it is killed."""
POLL_SECONDS = 0.1
LOG_LINES = 15
"""Lines of the log that are shown when a step failed without a record that says why."""


def run(
    workflow: Callable[..., Any],
    arguments: dict[str, Any],
    run_dir: Path,
    *,
    reuse: bool,
    within: Containers | None = None,
    step_timeout_s: float = 0.0,
) -> int:
    """Run the workflow to its end, whatever that is.

    Args:
        workflow: the pipeline.
        arguments: its parameters.
        run_dir: the run's folder; the engine's artifacts and cache, of all runs, lie beside it.
        reuse: take completed steps from the cache.
        within: run every step in a container of its own.
        step_timeout_s: seconds after which a step that has not ended is; 0 for no limit.

    Returns:
        SUCCEEDED only when every step that had to run has succeeded; else FAILED or INTERRUPTED.
    """
    engine = multiprocessing.get_context("fork").Process(
        target=_execute, args=(workflow, arguments, run_dir, reuse, within), name="engine"
    )
    if within:
        container_runner.remove_leftovers(run_dir.parent)
    run_layout.remove_leftovers(run_dir.parent)
    with run_layout.held(run_dir), _interrupts():
        try:
            engine.start()
            follow(run_dir, engine.is_alive, _say, Deadline(step_timeout_s).check)
        except StepTimeoutError as late:
            _say(f"\n{late}")
            stop(engine)
            record_late(run_dir, late)
            _report(run_dir, state="FAILED", error=str(late))
            return _close(run_dir, FAILED)
        except KeyboardInterrupt:
            for number in INTERRUPTS:
                signal.signal(number, signal.SIG_IGN)  # once is enough: what follows takes seconds and must end
            _say("\ninterrupted: stopping the step that runs")
            stop(engine)
            (run_dir / run_layout.INTERRUPTED).touch()
            _report(run_dir, state="CANCELLED", error="the run was interrupted")
            _say(f"Report:  {run_dir / 'report.html'}")
            _say("Start the same command again: steps that completed are reused.")
            return INTERRUPTED
        finally:
            shutil.rmtree(run_layout.temporary_of(run_dir), ignore_errors=True)
    engine.join()
    return _close(run_dir, engine.exitcode or 0)


def environment(run_dir: Path) -> dict[str, str]:
    """What the steps find in their environment; what the user has set stays. No part of it enters a cache key."""
    threads = str(len(os.sched_getaffinity(0)))
    return {
        "OMP_NUM_THREADS": threads,
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
        **({TERMINAL: os.ttyname(sys.stderr.fileno())} if sys.stderr.isatty() else {}),
        "LRM_CHECKPOINTS": str(run_dir.parent / run_layout.CHECKPOINTS),
        **os.environ,
        RUN_DIR: str(run_dir),
    }


def unmet(records: dict[str, dict[str, Any]]) -> list[str]:
    """Steps that had to run and did not: a condition that the engine cannot evaluate skips its branches silently."""
    is_won = records.get("evaluate_model", {}).get("metrics", {}).get("verdict") == "promote"
    due = [step for step in STEPS if step != REPORT and (is_won or step != "promote_model")]
    return [step for step in due if records.get(step, {}).get("state") not in ("succeeded", "reused")]


def stop(engine: BaseProcess) -> None:
    """End the engine and all of its steps, and wait for each: a step may outlive the engine to write its record.

    Args:
        engine: the leader of a process group; one that never started is left alone.
    """
    if engine.pid is None:
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(engine.pid, number)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if _is_over(engine, engine.pid):
                return
            time.sleep(POLL_SECONDS)


def _is_over(engine: BaseProcess, group: int) -> bool:
    if engine.is_alive():
        return False
    with suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)  # an orphaned step is a child of this process where it is a container's first
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _execute(
    workflow: Callable[..., Any], arguments: dict[str, Any], run_dir: Path, reuse: bool, within: Containers | None
) -> None:
    """The child: run the engine, with everything that it and its steps print in the log."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = (run_dir / "log.txt").open("a", buffering=1)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    os.environ.update(environment(run_dir))

    from kfp import local

    local.init(
        container_runner.runner(within, run_dir, arguments, environment(run_dir))
        if within
        else subprocess_runner.runner(run_dir),
        pipeline_root=str(run_layout.artifacts_of(run_dir)),
        workspace_root=str(run_dir / run_layout.WORKSPACE),
        enable_caching=reuse,
        cache_root=str(run_layout.cache_of(run_dir)),
    )
    workflow(**arguments)


def _end_with_parent() -> None:
    """End this process and its steps when the command line is killed: nobody would see them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGTERM)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Take each of `INTERRUPTS` as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _close(run_dir: Path, exit_code: int) -> int:
    """Print the closing summary, and judge the run by its steps' records."""
    records = read_records(run_dir)
    failed = [step for step, record in records.items() if record["state"] not in ("succeeded", "reused")]
    if not (run_dir / "report.html").is_file():
        _report(run_dir, state="FAILED", error="the workflow ended without its report")
    _print_summary(run_dir)
    if exit_code and not any(records[step]["error"] for step in failed):
        lines = (run_dir / "log.txt").read_text(errors="replace").splitlines()[-LOG_LINES:]
        _say("\n".join(["", "A step failed before it could say why. The end of the log:", *lines]))
    elif not exit_code and (missing := unmet(records)):
        _say(f"\nThe engine ended well, but never ran {', '.join(missing)}: the run counts as failed.")
        exit_code = FAILED
    if exit_code:
        _say(f"Log:     {run_dir / 'log.txt'}")
    return FAILED if exit_code else SUCCEEDED


def _report(run_dir: Path, *, state: str, error: str) -> None:
    """Write the report from here: the engine did not live to run its last step."""
    from lrm.reporting.run import report_run

    os.environ[RUN_DIR] = str(run_dir)
    report_run(run_dir, state=state, error=error)


def _print_summary(run_dir: Path) -> None:
    _say("")
    _say(summary_text(json.loads((run_dir / "summary.json").read_text()), run_dir=run_dir))


def _say(text: str) -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\r\x1b[K")  # where a progress bar may stand
    print(text, flush=True)
