"""What each section of the report says: plain values and finished drawings, ready for the template.

Every function returns an empty dictionary or list where the run did not get that far.
"""

from __future__ import annotations

from typing import Any

from lrm.reporting import plots, results, svg, wording
from lrm.reporting.run_files import Json, RunFiles
from lrm.reporting.summary import broken_steps

MAX_DRIFT = 8
MAX_EXAMPLES = 3
MAX_LETTERS = 160
"""Length at which a value from the data is cut."""
_TITLES = {
    "promote": "The challenger is the new champion",
    "keep": "The champion stays",
    "reject": "The challenger is rejected",
    "inconclusive": "Inconclusive: the champion stays",
}
_TONES = {"promote": "good", "keep": "calm", "reject": "warn", "inconclusive": "warn"}


def banner(summary: Json, files: RunFiles) -> Json:
    """The outcome first: a failure before any verdict, a verdict before any number."""
    error, verdict = summary["error"], summary["verdict"]
    if error:
        broken = broken_steps(summary)
        ended = "was interrupted" if broken and _state(summary, error["step"]) == "interrupted" else "failed"
        title = f"{error['step'] or 'The workflow'} {ended}"
        return {
            "tone": "bad",
            "icon": "failed",
            "title": title,
            "error": error,
            "service": _in_service(summary, files),
            "link": "validation" if error["step"] == "validate_data" and files.validation else "",
        }
    model = summary["model"] or {}
    title = _TITLES.get(verdict, f"Verdict: {verdict}" if verdict else "The run succeeded")
    if verdict == "promote" and model.get("version"):
        title = f"Version {model['version']} is the new champion"
    icon = {"keep": "kept", "reject": "interrupted", "inconclusive": "interrupted"}.get(verdict, "succeeded")
    return {
        "tone": _TONES.get(verdict, "calm"),
        "icon": icon,
        "title": title,
        "reasons": summary["reasons"],
        "next": _next(summary, files),
    }


def _next(summary: Json, files: RunFiles) -> str:
    """What a person can do after a verdict, with the command; "" where nothing was registered."""
    model, before = summary["model"] or {}, files.returned("promote_model").get("previous")
    if summary["verdict"] == "promote" and before:
        command = f'python pipeline.py rollback --name {model.get("name")} --reason "..."'
        return f"Version {before} is kept. To put it back in service: {command}"
    return str(summary["next"])


def tiles(summary: Json, files: RunFiles) -> list[Json]:
    """The numbers that a person asks for first."""
    found = []
    for task, metric in results.headline_metrics(files):
        own = summary["metrics"].get("challenger", {}).get(task, {}).get(metric)
        if own:
            label = f"{wording.TASKS.get(task, task)} {wording.metric_name(metric)}"
            note = f"{wording.number(own.get('low'))} to {wording.number(own.get('high'))}"
            found.append(_tile(label, wording.number(own.get("value")), note, results.change(files, task, metric)))
    ran = [step["seconds"] for step in summary["steps"] if step["state"] != "reused" and step["seconds"] is not None]
    n_reused = sum(step["state"] == "reused" for step in summary["steps"])
    note = f"{len(ran)} steps ran" + (f", {n_reused} reused" if n_reused else "")
    found.append(_tile("Time", wording.seconds(sum(ran)), note))
    data = summary["data"]
    if data["events"] is not None:
        sizes = [f"{wording.count(data[what])} {what}" for what in ("users", "items") if data[what] is not None]
        found.append(_tile("Events", wording.count(data["events"]), " · ".join(sizes)))
    return found


def data_card(files: RunFiles) -> Json:
    """Which data, cut where."""
    if not files.manifest:
        return {}
    data = files.manifest.get("data", {})
    facts = [
        ("Snapshot", files.manifest.get("snapshot_id")),
        ("Data sha256", data.get("sha256")),
        ("Protocol", data.get("protocol")),
        ("Retrieval horizon", _days(data.get("horizon_seconds"))),
        ("Terms", data.get("terms")),
    ]
    return {
        "name": data.get("name"),
        "description": data.get("description"),
        "rows": [(table, wording.count(n)) for table, n in files.manifest.get("rows", {}).items()],
        "facts": [(name, value) for name, value in facts if value],
        "windows": _windows(files.manifest),
    }


def validation(files: RunFiles) -> Json:
    """How many checks held, the ones that did not, and which signals drifted most."""
    checks = files.validation.get("checks", [])
    if not files.validation:
        return {}
    broken = [check for check in checks if not check.get("success")]
    critical = [check for check in broken if check.get("severity") == "critical"]
    drift = sorted(files.validation.get("drift", []), key=_drift_share, reverse=True)
    most = max((max(row["distance"] or 0, row["threshold"] or 0) for row in drift), default=1.0)
    return {
        "n_passed": len(checks) - len(broken),
        "n_warned": len(broken) - len(critical),
        "n_failed": len(critical),
        "broken": [
            check
            | {what: svg.clipped(str(check.get(what, "")), MAX_LETTERS) for what in ("observed", "expected", "column")}
            | {"examples": [_row_text(row) for row in check.get("examples", [])[:MAX_EXAMPLES]]}
            for check in sorted(broken, key=lambda check: check.get("severity") != "critical")
        ],
        "drift": [
            row | {"bar": plots.bar(row["distance"] or 0.0, most * 1.05, threshold=row["threshold"],
                                    tone="warn" if row["drifted"] else "plain")}
            for row in drift[:MAX_DRIFT]
        ],
        "n_drifted": sum(bool(row["drifted"]) for row in drift),
        "n_compared": len(drift),
        "has_page": files.has_validation_page,
    }  # fmt: skip


def curves(series: Json, *, best_epoch: int | None = None) -> list[Json]:
    """One panel for each quantity, its groups together: `train/loss` and `validation/loss` share one.

    Args:
        series: {"group/quantity": [[step, value], ...]}, the group `validation` with one point for each epoch.
        best_epoch: the epoch, from 1, whose weights were kept.
    """
    kept_at = best_epoch - 1 if best_epoch else None
    quantities: dict[str, Json] = {}
    for name, points in series.items():
        group, _, quantity = name.rpartition("/")
        quantities.setdefault(quantity, {})[group or "other"] = points
    return [
        {
            "title": wording.metric_name(name),
            "groups": list(groups),
            "chart": plots.curve(name, groups, kept_at=kept_at),
        }
        for name, groups in quantities.items()
    ]


def signals(files: RunFiles) -> list[Json]:
    """Every declared signal, with its share of nulls where validation measured it, and whether it drifted."""
    nulls = null_rates(files)
    drifted = {row["signal"] for row in files.validation.get("drift", []) if row["drifted"]}
    return [
        {
            "name": signal["name"],
            "kind": signal["kind"],
            "makers": signal["makers"],
            "entity": signal["entity"],
            "after": signal.get("known") == "after",
            "retired": signal.get("retired", False),
            "description": signal.get("description", ""),
            "null_rate": nulls.get(signal["name"]),
            "drifted": signal["name"] in drifted,
        }
        for signal in files.signals
    ]


def null_rates(files: RunFiles) -> dict[str, float]:
    """The share of nulls of each signal, as validation measured it: the largest where several tables carry it."""
    found: dict[str, float] = {}
    for table in files.statistics.values():
        for name, measured in table.get("signals", {}).items():
            found[name] = max(measured["null_rate"], found.get(name, 0.0))
    return found


def lineage(summary: Json, files: RunFiles) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Where the model came from and what it ran on, in titled lists."""
    run, model = files.run, summary["model"] or {}
    made = [
        ("Run", summary["run_id"]),
        ("Started", wording.instant(run["started"]) if run.get("started") else None),
        ("Command", run.get("command")),
        ("Code version", run.get("code_version")),
        ("Preset", run.get("preset")),
        ("Seed", run.get("seed")),
        ("As of", run.get("as_of")),
        ("Data snapshot", summary["data"]["snapshot_id"]),
        ("Data sha256", summary["data"]["sha256"]),
        ("Feature service", _service(files.manifest)),
        ("Join engine", files.manifest.get("engine")),
    ]
    version = [
        ("Name", model.get("name")),
        ("Version", model.get("version")),
        ("Aliases", ", ".join(model.get("aliases", []))),
        ("Compared with", files.lineage.get("parent_version")),
        ("Content sha256", files.returned("register_model").get("content_sha256")),
    ]
    lists = [
        ("Run", made),
        ("Model", version if model else []),
        ("Promotion", _scalars(files.returned("promote_model"))),
        ("Roll-out", _scalars(files.returned("roll_out"))),
        ("Parameters", _scalars(run.get("parameters", {}))),
        ("Versions", list(summary["versions"].items())),
    ]
    filled = [(title, [(name, value) for name, value in rows if value not in (None, "", [])]) for title, rows in lists]
    return [(title, rows) for title, rows in filled if rows]


def timings(summary: Json) -> list[Json]:
    """Seconds, CPU-seconds and memory of every step."""
    most = max((step["seconds"] or 0.0 for step in summary["steps"]), default=1.0)
    return [
        {
            **step,
            "seconds": wording.seconds(step["seconds"]),
            "cpu_seconds": wording.seconds(step["cpu_seconds"]),
            "peak_memory_mb": wording.memory(step["peak_memory_mb"]),
            "bar": plots.bar(step["seconds"], most, tone=step["state"]) if step["seconds"] is not None else "",
        }
        for step in summary["steps"]
    ]


def _in_service(summary: Json, files: RunFiles) -> str:
    """What a failed run did to the version in service."""
    if _state(summary, "promote_model") in ("failed", "interrupted"):
        return "Whether the alias “champion” has moved is not known from here: look at the registry."
    if files.returned("promote_model").get("is_moved"):
        return "The alias “champion” had already moved to the new version."
    return "The version in service has not changed."


def _tile(label: str, value: str, note: str, change: Json | None = None) -> Json:
    return {"label": label, "value": value, "note": note, "change": change or {}}


def _state(summary: Json, name: str) -> str:
    return next((step["state"] for step in summary["steps"] if step["name"] == name), "")


def _windows(manifest: Json) -> list[Json]:
    """The three windows in time, or nothing where the protocol does not cut by time."""
    cuts = [manifest.get(name) for name in ("validation_from", "test_from", "as_of")]
    if not all(cuts):
        return []
    validation_from, test_from, as_of = (wording.instant(cut) for cut in cuts)
    return [
        {"name": "train", "span": f"until {validation_from}"},
        {"name": "validation", "span": f"{validation_from} to {test_from}"},
        {"name": "test", "span": f"{test_from} to {as_of}"},
    ]


def _days(horizon: Any) -> str:
    if not wording.is_number(horizon):
        return ""
    return f"{horizon / 86_400:.3g} days" if horizon >= 86_400 else f"{horizon / 3600:.3g} hours"


def _drift_share(row: Json) -> float:
    return float(row["distance"] or 0.0) / float(row["threshold"] or 1.0)


def _service(manifest: Json) -> str:
    return " ".join(str(manifest[name]) for name in ("service", "service_version") if manifest.get(name))


def _row_text(row: Any) -> str:
    values = row if isinstance(row, dict) else {"": row}
    said = {name: svg.clipped("null" if value is None else str(value), MAX_LETTERS) for name, value in values.items()}
    return ", ".join(f"{name} {value}".strip() for name, value in said.items())


def _scalars(content: Json) -> list[tuple[str, Any]]:
    """The entries as lines; those of an inner dictionary under its name."""
    rows: list[tuple[str, Any]] = []
    for name, value in content.items():
        said = name.replace("_", " ").capitalize()
        if isinstance(value, dict):
            rows += [(f"{said}: {inner}", deep) for inner, deep in value.items()]
        elif isinstance(value, bool):
            rows.append((said, "yes" if value else "no"))
        else:
            rows.append((said, ", ".join(str(part) for part in value) if isinstance(value, list) else value))
    return rows
