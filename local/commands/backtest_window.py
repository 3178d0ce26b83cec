"""One window of a backtest: what its run decided, and what the window after it then showed."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

from local import run_layout
from lrm.record import Metrics, read_records

SUCCEEDED = ("succeeded", "reused")
JUDGED = "steps/evaluate_model/evaluation.json"


def completed_run(runs: Path, end: datetime) -> Path | None:
    """The run of a window that went all the way, if there is one."""
    done = [run for run in _runs_of(runs, end) if _status(run) == "succeeded"]
    return done[-1] if done else None


def retold(runs: Path, end: datetime) -> Metrics:
    """What a window's run saw and decided; its first run that judged a model and registered it counts.

    A run that was stopped after it had promoted is followed by one in which the new champion meets itself.
    """
    told = ((run, read_records(run)) for run in _runs_of(runs, end))
    run, records = next((run, records) for run, records in told if _is_registered(records))
    evaluation = _read(run / JUDGED)
    found = [row for row in evaluation["comparisons"] if row["against"] == "champion"]
    task, metric = evaluation["primary"]["task"], evaluation["primary"]["metric"]
    gain = next((row for row in found if (row["task"], row["metric"]) == (task, metric)), None)
    drift = _read(run / "steps/validate_data/validation.json")["drift"]
    drifted = sorted((row for row in drift if row["drifted"]), key=lambda row: row["threshold"] - row["distance"])
    return {
        "as_of": end.isoformat(),
        "run_id": run.name,
        "verdict": evaluation["verdict"],
        "reasons": evaluation["reasons"],
        "version": records["register_model"]["metrics"]["version"],
        "champion_before": records["find_champion"]["metrics"]["version"],
        "task": task,
        "metric": metric,
        "value": evaluation["models"]["challenger"][task][metric],
        "gain": _interval(gain) if gain else None,
        "n_drifted": len(drifted),
        "n_compared": len(drift),
        "drifted": [row["signal"] for row in drifted],
        "later": None,
    }


def later(
    window: Metrics, runs: Path, end: datetime, folder: Path, registry: str, name: str, *, preset: str, seed: int
) -> Metrics | None:
    """How the window's model and the champion it met compare on the requests of the next window.

    Args:
        window: from `retold`; its end is where the next window begins.
        runs: the runs of the backtest.
        end: of the next window.
        folder: for what is written on the way.
        registry: the backtest's own.
        name: the registered model.
        preset: whose `evaluation` part applies.
        seed: of its draws.

    Returns:
        `difference`, `low`, `high` of the deciding metric, and `n_users`; None where the next window has no request.
    """
    from lrm.evaluation.run import evaluate_model
    from lrm.registry.run import resolve

    run = completed_run(runs, end)
    assert run is not None
    examples = folder / f"examples-{window['version']}"
    if not only_after(_examples_of(run), examples, window["as_of"]):
        return None
    own, other = (
        Path(resolve(registry, name, version=window[key])["bundle"]) for key in ("version", "champion_before")
    )
    evaluate_model(examples, own, other, folder / f"evaluation-{window['version']}", preset=preset, seed=seed)
    found = _read(folder / f"evaluation-{window['version']}" / "evaluation.json")["comparisons"]
    shutil.rmtree(examples)
    key = ("champion", window["task"], window["metric"])
    return next((_interval(row) for row in found if (row["against"], row["task"], row["metric"]) == key), None)


def only_after(source: Path, folder: Path, end: str) -> int:
    """Copy examples so that their test window is what a window's end did not know; returns its number of requests.

    Not known are the requests whose outcome was still open then: those whose horizon ends at it or after.
    """
    import polars as pl

    from lrm.schema import EVENT_TIME, SPLIT, TEST, VALIDATION

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    manifest = _read(source / "manifest.json")
    horizon = timedelta(seconds=manifest["data"]["horizon_seconds"])
    known_until = pl.lit(datetime.fromisoformat(end))
    is_new = {"events": pl.col(EVENT_TIME) >= known_until, "requests": pl.col(EVENT_TIME) + horizon >= known_until}
    older = pl.when(pl.col(SPLIT) == TEST).then(pl.lit(VALIDATION)).otherwise(pl.col(SPLIT))
    for table, is_tested in is_new.items():
        rows = pl.read_parquet(source / f"{table}.parquet", glob=False)
        split = pl.when(is_tested).then(pl.lit(TEST)).otherwise(older)
        rows.with_columns(split.alias(SPLIT)).write_parquet(folder / f"{table}.parquet")
    (folder / "manifest.json").write_text(json.dumps(manifest | {"test_from": end}, indent=1) + "\n")
    return pl.read_parquet(folder / "requests.parquet", glob=False).filter(pl.col(SPLIT) == TEST).height


def _examples_of(run: Path) -> Path:
    inputs = [Path(path) for path in read_records(run)["train_lrm"]["inputs"]]
    return next(path for path in inputs if _read(path / "record.json")["step"] == "retrieve_features")


def _runs_of(runs: Path, end: datetime) -> list[Path]:
    """The runs of a window, the oldest first."""
    return [run for run, asked in run_layout.asked_of(runs) if asked["as_of"] == end.isoformat()]


def _is_registered(records: Metrics) -> bool:
    return records.get("register_model", {}).get("state") in SUCCEEDED


def _status(run: Path) -> str:
    path = run / "summary.json"
    return str(_read(path)["status"]) if path.is_file() else ""


def _interval(row: Metrics) -> Metrics:
    return {key: row[key] for key in ("difference", "low", "high", "n_users")}


def _read(path: Path) -> Metrics:
    content: Metrics = json.loads(path.read_text())
    return content
