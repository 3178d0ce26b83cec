"""`summary.json`: a run in one small document for programs, and the same as a table for a terminal.

docs/summary.md explains it, `summary.schema.json` beside this file is its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lrm import formats
from lrm.reporting import staging
from lrm.reporting.run_files import STEPS, Json, RunFiles
from lrm.reporting.warnings import warnings
from lrm.reporting.wording import TASKS, in_model_order, is_number, memory, metric_name, model_name, number, seconds

REPORT = "report_run"
N_METRICS, N_REASONS, N_WARNINGS = 4, 4, 6
"""Metrics of a task, reasons and warnings that the terminal shows; the report has them all."""
ENDED_WELL = ("SUCCEEDED", "COMPLETE", "CACHED")
"""How an engine says that the workflow ended well: the local one's word, then those of a cluster, which passes on the
state of its metadata store (ML Metadata's `Execution.State`)."""
UNTOLD = ("RUNNING", "NEW", "UNKNOWN", "")
"""States that say nothing, as of a group of steps that nobody closed: the steps' own records decide."""
_BROKEN = ("failed", "interrupted")
_MARKS = {"succeeded": "ok", "reused": "reused", "failed": "FAILED", "interrupted": "STOPPED", "skipped": "skipped"}
_REMEDIES = {
    "DataError": "Mend the file that the message names, then run the same command again.",
    "SchemaError": "Make the declarations in the feature repo and the data agree, then run the same command again.",
    "ConfigError": "Change what the message names in the preset, or take another preset, then run again.",
    "PolicyError": "Mend the knob that the message names in policy.toml, then run the same command again.",
    "ValidationFailed": "Read the failed checks and their example rows in the report, mend the data or the declared "
    "expectation, then run the same command again.",
    "TrainingDiverged": "Look at the named step and parameter group; lower the learning rate or mend the signal that "
    "feeds it, then run the same command again.",
    "RegistryError": "Do what the message says about the registry or its address, then run again; where another run "
    "has promoted a version meanwhile, running again is all.",
    "ServingError": "Look at the server's own words in log.txt, then run the same command again.",
    "StepTimeoutError": "See in log.txt what the step waited for, then run the same command again: finished steps are "
    "reused, and training goes on from its checkpoint. A step that needs more time gets it with --step-timeout.",
    "MemoryError": "Take a smaller preset or a machine with more memory, then run again.",
}
_AGAIN = "Run the same command again: finished steps are reused."
_LOOK = "log.txt in the run's folder has the full trace. Finished steps are reused when the command is run again."


def build(files: RunFiles, *, run_id: str, state: str, error: str, failed_step: str) -> Json:
    """The summary of a run; the last step, the report itself, has no times yet.

    Args:
        files: what the steps left behind.
        run_id: used where run.json has none.
        state: the workflow's own final state, one of `ENDED_WELL` or `UNTOLD`; any other makes the run failed.
        error: what the workflow engine said about the failure.
        failed_step: the step that the engine blames, if it says so.
    """
    failed_outside = failed_step if state not in ENDED_WELL else ""
    steps = [_step(name, files.records.get(name), failed_outside) for name in STEPS if name != REPORT]
    report = _step(REPORT, {"state": "succeeded"}, "")
    problem = _problem(steps, files, state=state, error=error, failed_step=failed_step)
    summary = {
        formats.FORMAT: formats.SUMMARY,
        "run_id": files.run.get("run_id") or run_id,
        "status": "failed" if problem else "succeeded",
        "verdict": files.evaluation.get("verdict"),
        "reasons": list(files.evaluation.get("reasons", [])),
        "next": files.returned("register_model").get("next", ""),
        "warnings": warnings(files),
        "data": _data(files),
        "steps": [*steps, report],
        "staging": staging.summary(files),
        "metrics": files.evaluation.get("models", {}),
        "model": _model(files),
        "versions": dict(files.run.get("versions", {})),
        "error": problem,
    }
    finite: Json = _finite(summary)
    return finite


def broken_steps(summary: Json) -> list[str]:
    """The steps that failed or were interrupted, in the workflow's order."""
    return [step["name"] for step in summary["steps"] if step["state"] in _BROKEN]


def _step(name: str, record: Json | None, failed_step: str) -> Json:
    state = "skipped" if record is None else str(record.get("state"))
    if record is not None and (state == "running" or _was_interrupted(record)):
        state = "interrupted"
    elif name == failed_step:
        state = "failed"
    taken = record or {}
    return {
        "name": name,
        "state": state,
        "seconds": taken.get("seconds"),
        "cpu_seconds": taken.get("cpu_seconds"),
        "peak_memory_mb": taken.get("peak_memory_mb"),
    }


def _was_interrupted(record: Json) -> bool:
    return (record.get("error") or {}).get("type") in ("KeyboardInterrupt", "SystemExit")


def _problem(steps: list[Json], files: RunFiles, *, state: str, error: str, failed_step: str) -> Json | None:
    """What went wrong, if something did: where, the step's or else the engine's own words, and what to do."""
    broken = next((step for step in steps if step["state"] in _BROKEN), None)
    if broken is None and state in (*ENDED_WELL, *UNTOLD):
        return _never_ran(steps, files.evaluation.get("verdict"), state)
    if broken is None:
        seen = error or f"the workflow ended in the state {state}, and no step left a record of why"
        return {"step": failed_step, "type": "", "message": seen, "remedy": _LOOK}
    said = files.records.get(broken["name"], {}).get("error") or {}
    if broken["state"] == "interrupted":
        seen = said.get("message") or "The step started and never ended: it was stopped, or its process was killed."
        return {"step": broken["name"], "type": said.get("type", ""), "message": seen, "remedy": _AGAIN}
    kind = said.get("type", "")
    seen = said.get("message") or error or "The step failed without a message of its own."
    return {"step": broken["name"], "type": kind, "message": seen, "remedy": _REMEDIES.get(kind, _LOOK)}


def _never_ran(steps: list[Json], verdict: str | None, state: str) -> Json | None:
    """A step that was due and left no record makes the run failed, whatever the engine says.

    A condition that it cannot evaluate skips its branches silently; a container that never started writes nothing.
    """
    due = [step["name"] for step in steps if step["name"] != "promote_model" or verdict == "promote"]
    missing = [step["name"] for step in steps if step["state"] == "skipped" and step["name"] in due]
    if not missing:
        return None
    seen = f"The engine ended well, but never ran {', '.join(missing)}."
    if state in UNTOLD:
        seen = f"The engine says no more than {state or 'nothing'}, and {', '.join(missing)} left no record."
    return {"step": missing[0], "type": "", "message": seen, "remedy": _LOOK}


def _data(files: RunFiles) -> Json:
    data, rows = files.manifest.get("data", {}), files.manifest.get("rows", {})
    return {
        "name": data.get("name") or files.run.get("data"),
        "sha256": data.get("sha256"),
        "events": rows.get("events"),
        "users": files.returned("retrieve_features").get("n_users"),
        "items": rows.get("items"),
        "snapshot_id": files.manifest.get("snapshot_id"),
    }


def _model(files: RunFiles) -> Json | None:
    registered, promoted = files.returned("register_model"), files.returned("promote_model")
    if not registered:
        return None
    version = str(registered.get("version"))
    champion = promoted.get("champion") or files.returned("find_champion").get("version")
    aliases = ["challenger", *(["champion"] if str(champion) == version else [])]
    return {"name": files.run.get("parameters", {}).get("model_name"), "version": version, "aliases": sorted(aliases)}


def _finite(value: Any) -> Any:
    """The same document with null where a number is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not is_number(value) else value


def summary_text(summary: Json, *, run_dir: Path | None = None) -> str:
    """The closing table that the command line prints: plain text, aligned, at most about 100 columns."""
    error, verdict = summary["error"], summary["verdict"]
    lines = [f"Run {summary['run_id']}: {summary['status']}"]
    if error:
        lines += ["", f"{error['step'] or 'The workflow'} stopped. {error['type']}".rstrip(), f"  {error['message']}"]
        lines += [f"  {error['remedy']}"]
    steps = [
        (
            step["name"],
            _MARKS.get(step["state"], step["state"]),
            _or_blank(seconds, step["seconds"]),
            _or_blank(seconds, step["cpu_seconds"]),
            _or_blank(memory, step["peak_memory_mb"]),
        )
        for step in summary["steps"]
    ]
    lines += ["", *_table(("step", "state", "time", "CPU time", "peak memory"), steps, n_left=2)]
    lines += _staging_lines(summary["staging"])
    for task in TASKS:
        lines += _metrics_table(task, summary["metrics"])
    if verdict:
        lines += ["", f"Verdict: {verdict}", *_list(summary["reasons"], N_REASONS)]
    lines += ["", summary["next"]] if summary["next"] else []
    if summary["warnings"]:
        lines += ["", "Warnings", *_list([warning["what"] for warning in summary["warnings"]], N_WARNINGS)]
    model = summary["model"]
    if model:
        aliases = ", ".join(model["aliases"]) or "none"
        lines += ["", f"Model:   {model['name']} version {model['version']} (aliases: {aliases})"]
    where = run_dir or Path("runs") / str(summary["run_id"])
    lines += ["", f"Report:  {where / 'report.html'}"]
    return "\n".join(lines)


def _list(sentences: Sequence[str], n: int) -> list[str]:
    more = [f"  - and {len(sentences) - n} more, in the report"] if len(sentences) > n else []
    return [*(f"  - {sentence}" for sentence in sentences[:n]), *more]


def _staging_lines(found: Json | None) -> list[str]:
    if not found:
        return []
    if not found["n_users"]:
        return ["", "Staging check: the model could not be served; the report says why"]
    beside = found["champion_latency_p50_ms"]
    champion = f" (champion {beside:.0f})" if beside is not None else ""
    return [
        "",
        f"Staging check: {found['n_users']} users online and offline, {found['n_skewed']} differences beyond the "
        f"tolerance; median answer {found['latency_p50_ms']:.0f} ms{champion}",
    ]


def _metrics_table(task: str, models: Json) -> list[str]:
    shown = [model for model in in_model_order(models) if models[model].get(task)]
    names = list(dict.fromkeys(metric for model in shown for metric in models[model][task]))[:N_METRICS]
    if not shown:
        return []
    rows = [(model_name(model), *(_estimate(models[model][task].get(name)) for name in names)) for model in shown]
    return ["", *_table((task, *(metric_name(name) for name in names)), rows, n_left=1)]


def _estimate(metric: Json | None) -> str:
    if not metric:
        return ""
    if not (is_number(metric.get("low")) and is_number(metric.get("high"))):
        return number(metric.get("value"))
    return f"{number(metric['value'])} [{number(metric['low'])}, {number(metric['high'])}]"


def _or_blank(say: Callable[[Any], str], value: Any) -> str:
    return "" if value is None else say(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, n_left: int) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    ruled = [head, tuple("-" * width for width in widths), *rows]
    return [
        "  ".join(
            cell.ljust(width) if i < n_left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in ruled
    ]
