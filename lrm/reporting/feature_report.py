"""The feature report as a section: what each signal brings to the model, and what it costs."""

from __future__ import annotations

from lrm.reporting import plots, wording
from lrm.reporting.run_files import Json, RunFiles

TONES = {"keep": "good", "could be dropped": "warn", "suspicious": "bad"}


def feature_report(files: RunFiles) -> Json:
    """Fill the table in the order of the file: deciding metrics as columns, the main one as a plot."""
    report = files.feature_report
    if not report.get("signals"):
        return {}
    main, *others = ((task, metric) for task, metric in report["metrics"])
    cells = [_importance(row, main) for row in report["signals"]]
    reach = max((abs(end) for cell in cells for end in _ends(cell)), default=0.0)
    return {
        "n_requests": wording.count(report["n_requests"]),
        "n_users": wording.count(report["n_users"]),
        "metric": _title(main),
        "others": [_title(other) for other in others],
        "rows": [_row(row, cell, others, reach) for row, cell in zip(report["signals"], cells, strict=True)],
        "droppable": report["droppable"],
        "together": report["together"]["signals"],
        "lost_together": [
            f"{_title(matter)} {_said(cell)}"
            for matter in (main, *others)
            if (cell := report["together"]["importance"].get(matter[0], {}).get(matter[1]))
        ],
        "unclear": [row["signal"] for row in report["signals"] if row["verdict"] == "unclear"],
    }


def _row(row: Json, cell: Json, others: list[tuple[str, str]], reach: float) -> Json:
    tone = TONES.get(row["verdict"], "plain")
    value, low, high = cell.get("value"), cell.get("low"), cell.get("high")
    recovered = [
        f"{maker} {share['prompt']:.0%}"
        for maker, share in row["linear_probes"].items()
        if wording.is_number(share["prompt"])
    ]
    return {
        "signal": row["signal"],
        "verdict": row["verdict"],
        "tone": tone,
        "reason": row["reason"],
        "chart": plots.difference(value, low, high, reach, tone) if wording.is_number(value) else "",
        "importance": wording.signed(value),
        "interval": _interval(cell),
        "others": [_said_in_cell(_importance(row, other)) for other in others],
        "per_cost": f"{row['value_per_cost']:.3g}" if wording.is_number(row["value_per_cost"]) else wording.UNKNOWN,
        "tokens": f"{row['prompt_tokens']:.2f}",
        "bytes": wording.count(row["online_bytes"]),
        "nulls": f"{row['null_rate']:.1%}",
        "recovered": recovered,
    }


def _importance(row: Json, matter: tuple[str, str]) -> Json:
    cell: Json = row["importance"].get(matter[0], {}).get(matter[1], {})
    return cell


def _ends(cell: Json) -> list[float]:
    return [end for end in (cell.get("value"), cell.get("low"), cell.get("high")) if wording.is_number(end)]


def _interval(cell: Json) -> str:
    if not (wording.is_number(cell.get("low")) and wording.is_number(cell.get("high"))):
        return ""
    return f"{wording.signed(cell['low'])} to {wording.signed(cell['high'])}"


def _said_in_cell(cell: Json) -> Json:
    return {"value": wording.signed(cell.get("value")), "interval": _interval(cell)}


def _said(cell: Json) -> str:
    return f"{wording.signed(cell.get('value'))} ({_interval(cell)})"


def _title(matter: tuple[str, str]) -> str:
    task, metric = matter
    return f"{wording.TASKS.get(task, task)} {wording.metric_name(metric)}"
