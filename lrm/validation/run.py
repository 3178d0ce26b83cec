"""The door of validation: judge a snapshot, write down what was found, stop the run where training must not start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lrm.errors import DataError, ValidationFailed
from lrm.features.tables import Tables, read, read_declared, read_manifest
from lrm.record import recorded
from lrm.schema import EVENT_TIME, REQUEST_ID, Signal
from lrm.storage import whole_file, write_json, write_text
from lrm.validation.columns import KEY_TYPES, Placed, place, without

if TYPE_CHECKING:
    from lrm.validation.expectation_runner import Judgement

N_TOLD = 2
"""Example rows that the message of a failed check shows; the page has them all."""
PAGE, CHECKS, STATISTICS, QUARANTINE = "validation.html", "validation.json", "statistics.json", "quarantine.parquet"
QUARANTINE_SCHEMA = dict.fromkeys(("table", "row_id", "column", "reason", "row"), pl.String)


@recorded("validate_data", output="validation", keep=(CHECKS, PAGE, STATISTICS))
def validate_data(examples: Path, reference: Path | None, validation: Path) -> dict[str, Any]:
    """Judge the examples against their declarations and against the champion's statistics.

    Args:
        examples: folder that retrieve_features wrote.
        reference: `statistics.json` kept with the champion; None where there is no champion yet.
        validation: folder to write (docs/artifacts.md, section 3), complete before any error is raised.

    Returns:
        `n_checks`, `n_critical` and `n_warning` (broken checks), `n_drifted` (signals), `n_quarantined` (rows).

    Raises:
        DataError: a file is missing or unreadable.
        ValidationFailed: a critical expectation broke.
    """
    from lrm.reporting.validation_page import render
    from lrm.validation.drift import MATERIAL_DISTANCE, MATERIAL_SHIFT, measure_drift
    from lrm.validation.expectation_runner import quarantine

    tables, signals, manifest = read(examples), read_declared(examples), read_manifest(examples)
    before = _read_reference(reference) if reference else None
    judgements, statistics, sound = _judge(tables, signals, datetime.fromisoformat(manifest["as_of"]), before)
    drift = measure_drift(tables, sound, before) if before and statistics else []
    summary = _summary([judgement.check for judgement in judgements], drift)
    n_quarantined = _write_quarantine(quarantine(tables, judgements), validation / QUARANTINE)
    write_json(validation / STATISTICS, statistics, allow_nan=False)
    write_json(validation / CHECKS, summary, allow_nan=False)
    material = {"distance": MATERIAL_DISTANCE, "shift": MATERIAL_SHIFT}
    html = render(summary, statistics, signals, manifest, n_quarantined=n_quarantined, material=material)
    write_text(validation / PAGE, html)
    if not summary["success"]:
        raise ValidationFailed(_failure(summary["checks"], validation))
    return {
        "n_checks": len(judgements),
        "n_critical": summary["n_critical"],
        "n_warning": summary["n_warning"],
        "n_drifted": sum(row["drifted"] for row in drift),
        "n_quarantined": n_quarantined,
    }


def drift_since(examples: Path, reference: Path, since: str) -> list[dict[str, Any]]:
    """How far the newest rows have moved from what a model was trained on.

    Args:
        examples: folder that retrieve_features wrote.
        reference: `statistics.json` kept with that model.
        since: ISO instant; events and requests from then on are the newest. Items have no time, and are left out.

    Returns:
        Rows as `validation.json` lists them under `drift`; tables without a new row are left out.

    Raises:
        DataError: a file is missing or unreadable.
    """
    from lrm.validation.drift import measure_drift

    tables, begin = read(examples), pl.lit(datetime.fromisoformat(since))
    requests = tables.requests.filter(pl.col(EVENT_TIME) >= begin)
    newest = tables._replace(
        events=tables.events.filter(pl.col(EVENT_TIME) >= begin),
        requests=requests,
        candidates=tables.candidates.join(requests.select(REQUEST_ID), on=REQUEST_ID, how="semi"),
    )
    placed = place(read_declared(examples))
    filled = {name: placed[name] for name in ("events", "requests", "candidates") if getattr(newest, name).height}
    return measure_drift(newest, filled, _read_reference(reference))


def _judge(
    tables: Tables, signals: Sequence[Signal], as_of: datetime, reference: dict[str, Any] | None
) -> tuple[list[Judgement], dict[str, Any], Placed]:
    """Structure first; the rest only of what has passed it.

    Returns:
        The judgements, the statistics (empty where the structure is too broken to compute any), and the placed signals
        that they cover.
    """
    from lrm.validation.expectation_runner import judge
    from lrm.validation.expectations import data_wide, structure
    from lrm.validation.profile import statistics
    from lrm.validation.signal_expectations import declared

    placed = place(signals)
    judgements = judge(tables, structure(tables, placed, reference=reference), what="validate structure")
    broken = {(one.check["table"], one.check["column"]) for one in judgements if not one.check["success"]}
    if any(not column or column in KEY_TYPES[table] for table, column in broken):
        return judgements, {}, placed
    sound = without(placed, broken)
    observed = statistics(tables, sound)
    rules = [
        *data_wide(tables, as_of=as_of, reference=reference),
        *declared(tables, sound, statistics=observed, reference=reference),
    ]
    return judgements + judge(tables, rules, what="validate values"), observed, sound


def _read_reference(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} is missing: the champion's statistics; pass no reference where there is no champion")
    try:
        statistics: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}); take it from the champion's model folder again") from error
    return statistics


def _summary(checks: list[dict[str, Any]], drift: list[dict[str, Any]]) -> dict[str, Any]:
    broken = [check["severity"] for check in checks if not check["success"]]
    n_critical = broken.count("critical")
    return {
        "success": n_critical == 0,
        "n_critical": n_critical,
        "n_warning": len(broken) - n_critical,
        "checks": checks,
        "drift": drift,
    }


def _failure(checks: Iterable[dict[str, Any]], validation: Path) -> str:
    """What stopped the run: each broken critical check on a line, then where to look and what to do."""
    from lrm.reporting.wording import cut

    lines = []
    for check in checks:
        if check["success"] or check["severity"] != "critical":
            continue
        where = f"{check['table']}.{check['column']}" if check["column"] else check["table"]
        n_bad = check["n_bad"]
        bad = f"{n_bad:,} bad row{'s' * (n_bad > 1)}" if n_bad else f"saw {cut(check['observed'])}"
        examples = [" ".join(f"{name}={cut(value)}" for name, value in row.items()) for row in check["examples"]]
        rows = f"; for example {' and '.join(examples[:N_TOLD])}" if examples else ""
        lines.append(f"- {where}: {check['name']} (expected {cut(check['expected'])}): {bad}{rows}")
    return "\n".join(
        [
            f"training must not start on this data: {len(lines)} critical check{'s' * (len(lines) > 1)} failed",
            *lines,
            f"See {validation / PAGE}; all bad rows are in {validation / QUARANTINE}. Mend the source tables, or the "
            "declaration in feature_repo/views.py if the data is right.",
        ]
    )


def _write_quarantine(frames: Iterable[pl.DataFrame], path: Path) -> int:
    """Write the frames one after another, and return the rows written; the file exists even where there are none."""
    import pyarrow.parquet as pq

    n_rows = 0

    def write(partial: Path) -> None:
        nonlocal n_rows
        empty = pl.DataFrame(schema=QUARANTINE_SCHEMA).to_arrow()
        with pq.ParquetWriter(partial, empty.schema) as writer:
            for frame in frames:
                writer.write_table(frame.to_arrow().cast(empty.schema))
                n_rows += frame.height

    with whole_file(path) as partial:
        write(partial)
    return n_rows
