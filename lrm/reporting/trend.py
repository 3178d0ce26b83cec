"""The trend page: every run of a model on one page, and what was in service when.

Each run leaves one small file of facts beside the runs, so that the page still shows it after the run's folder was
pruned: `<runs>/trends/<model>/<run id>.json`, and from all of them `<runs>/trends/<model>.html`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lrm.reporting import backtest_plots, results, trend_plots, wording
from lrm.reporting.page import filled
from lrm.reporting.run_files import Json, RunFiles
from lrm.storage import write_text

TEMPLATE = "trend.html.j2"
FOLDER = "trends"
MAX_DRAWN = 60
"""Runs in a chart: the latest. The table has all."""
TONES = {"promote": "good", "keep": "calm", "reject": "warn", "inconclusive": "warn", "failed": "bad"}


def update(run_dir: Path, summary: Json, files: RunFiles) -> Path | None:
    """Keep the facts of a run, and write the page of its model anew.

    Returns:
        The page; None where the run ended before it knew which model it is about.
    """
    name = model_name(summary, files)
    if not name:
        return None
    folder = run_dir.parent / FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{run_dir.name}.json", json.dumps(facts(summary, files), allow_nan=False) + "\n")
    page = folder.with_name(f"{name}.html")
    write_text(page, render(name, read(folder), run_dir.parent))
    return page


def model_name(summary: Json, files: RunFiles) -> str:
    """The model that a run is about, "" where it is not known."""
    return str(files.run.get("parameters", {}).get("model_name") or (summary["model"] or {}).get("name") or "")


def link(summary: Json, files: RunFiles) -> str:
    """Where a run's report finds the page, "" where there is none."""
    name = model_name(summary, files)
    return f"../{FOLDER}/{name}.html" if name else ""


def facts(summary: Json, files: RunFiles) -> Json:
    """What the trend keeps of a run: a few kilobytes of numbers and words, none that is not finite."""
    started = files.run.get("started") or min((one["started"] for one in files.records.values()), default="")
    drift = files.validation.get("drift", [])
    before, promoted = files.returned("find_champion").get("version"), files.returned("promote_model")
    return {
        "run_id": summary["run_id"],
        "started": started,
        "as_of": files.manifest.get("as_of") or "",
        "outcome": "failed" if summary["status"] == "failed" else summary["verdict"] or "",
        "why": summary["error"]["message"] if summary["error"] else next(iter(summary["reasons"]), ""),
        "step": summary["error"]["step"] if summary["error"] else "",
        "version": (summary["model"] or {}).get("version") or "",
        "champion_before": before or "",
        "champion": (promoted.get("champion") if promoted.get("is_moved") else before) or "",
        "moves": files.moves,
        "n_events": summary["data"]["events"],
        "n_users": summary["data"]["users"],
        "n_items": summary["data"]["items"],
        "n_drifted": sum(bool(row["drifted"]) for row in drift),
        "n_compared": len(drift),
        "drifted": [row["signal"] for row in drift if row["drifted"]],
        "n_warnings": len(summary["warnings"]),
        "seconds": {step["name"]: step["seconds"] for step in summary["steps"] if step["state"] != "reused"},
        "metrics": [_metric(summary, files, task, metric) for task, metric in results.headline_metrics(files)],
    }


def read(folder: Path) -> list[Json]:
    """The facts of every run, oldest first; a file that is no JSON, torn by a machine that went down, is left out."""
    found = []
    for path in folder.glob("[!.]*.json"):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            continue
    return sorted(found, key=lambda run: (run["started"], run["run_id"]))


def render(name: str, runs: Sequence[Json], folder: Path) -> str:
    """The page of a model.

    Args:
        name: the model.
        runs: what `read` gives, at least one.
        folder: where the runs are; a run whose report is still there is linked.
    """
    drawn, moves = runs[-MAX_DRAWN:], _moves(runs)
    last = runs[-1]
    windows = [run | {"as_of": run["started"]} for run in drawn]
    panels = [
        *trend_plots.metrics(drawn),
        ("In service", trend_plots.service(moves, last["started"])),
        ("Signals that drifted from the champion\N{RIGHT SINGLE QUOTATION MARK}s data", backtest_plots.drift(windows)),
        ("Events in the data", trend_plots.bars([(run, run["n_events"], "") for run in drawn], wording.count)),
        ("Time of a run", trend_plots.bars([(run, _total(run), _slowest(run)) for run in drawn], wording.seconds)),
    ]
    return filled(
        TEMPLATE,
        {
            "name": name,
            "tone": TONES.get(last["outcome"], "plain"),
            "title": f"Version {last['champion']} is in service"
            if last["champion"]
            else "No version is in service yet",
            "asked": f"As the run of {wording.instant(last['started'])} left it",
            "tiles": _tiles(runs, moves),
            "panels": [(title, chart) for title, chart in panels if chart],
            "n_drawn": len(drawn),
            "rows": [_row(run, folder) for run in reversed(runs)],
            "moves": [move | {"time": wording.instant(move["time"])} for move in reversed(moves)],
        },
    )


def _metric(summary: Json, files: RunFiles, task: str, metric: str) -> Json:
    """The main metric of a task: the challenger's value, the champion's on the same data, and the gain."""
    models = summary["metrics"]
    same = (task, metric, "champion", "")
    rows = files.evaluation.get("comparisons", [])
    gain = next(
        (row for row in rows if (row["task"], row["metric"], row["against"], row.get("slice", "")) == same), None
    )
    return {
        "task": task,
        "metric": metric,
        "challenger": models.get("challenger", {}).get(task, {}).get(metric),
        "champion": models.get("champion", {}).get(task, {}).get(metric),
        "gain": {end: gain[end] for end in ("difference", "low", "high")} if gain else None,
    }


def _moves(runs: Sequence[Json]) -> list[Json]:
    """Every move of the champion, oldest first: the ledger's lines, as each run read them, and each run's own."""
    found = {(move["time"], move["version"]): move for run in runs for move in run["moves"]}
    return [found[key] for key in sorted(found)]


def _tiles(runs: Sequence[Json], moves: Sequence[Json]) -> list[Json]:
    n_failed = sum(run["outcome"] == "failed" for run in runs)
    n_promoted = sum(run["outcome"] == "promote" for run in runs)
    back = sum(move["action"] == "rollback" for move in moves)
    times = sorted(_total(run) for run in runs)
    return [
        {
            "label": "Runs",
            "value": wording.count(len(runs)),
            "note": f"{n_failed} failed" if n_failed else "none failed",
        },
        {"label": "Promotions", "value": wording.count(n_promoted), "note": f"{back} rolled back"},
        {"label": "Drifted now", "value": wording.count(runs[-1]["n_drifted"]), "note": f"of {runs[-1]['n_compared']}"},
        {"label": "Time of a run", "value": wording.seconds(times[len(times) // 2]), "note": "median"},
    ]


def _row(run: Json, folder: Path) -> Json:
    first: Json = next(iter(run["metrics"]), {})
    report = folder / run["run_id"] / "report.html"
    return {
        "run_id": run["run_id"],
        "link": f"../{run['run_id']}/report.html" if report.is_file() else "",
        "when": wording.instant(run["started"]),
        "outcome": run["outcome"] or "none",
        "tone": TONES.get(run["outcome"], "plain"),
        "version": run["version"] or wording.UNKNOWN,
        "champion": run["champion"] or wording.UNKNOWN,
        "metric": wording.metric_name(first["metric"]) if first else "",
        "value": wording.number((first.get("challenger") or {}).get("value")),
        "gain": wording.signed((first.get("gain") or {}).get("difference")),
        "drifted": f"{run['n_drifted']} of {run['n_compared']}" if run["n_compared"] else wording.UNKNOWN,
        "warnings": run["n_warnings"] or "",
        "seconds": wording.seconds(_total(run)),
        "why": f"{run['step']}: {run['why']}" if run["step"] else run["why"],
    }


def _total(run: Json) -> float:
    return sum(seconds or 0.0 for seconds in run["seconds"].values())


def _slowest(run: Json) -> str:
    times = {step: seconds for step, seconds in run["seconds"].items() if seconds}
    longest = sorted(times, key=lambda step: -times[step])[:3]
    return ", ".join(f"{step} {wording.seconds(times[step])}" for step in longest)
