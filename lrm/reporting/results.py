"""What evaluation found, ready for the template: tables, plots and example recommendations.

Every function returns an empty list where the run did not get that far.
"""

from __future__ import annotations

from collections.abc import Iterable

from lrm.reporting import plots, wording
from lrm.reporting.run_files import Json, RunFiles

MAX_HISTORY = 10
"""Events of an example's history that its card shows: the most recent ones."""


def headline_metrics(files: RunFiles) -> list[tuple[str, str]]:
    """One metric for each task, ranking first: AUC for ranking, NDCG for retrieval, or else the first there is."""
    models = files.evaluation.get("models", {})
    own: Json = models.get("challenger") or next(iter(models.values()), {})
    wanted = {"retrieval": "ndcg", "ranking": "auc"}
    return [
        (task, min(metrics, key=lambda metric: not metric.startswith(wanted.get(task, metric))))
        for task, metrics in sorted(own.items())
        if metrics
    ]


def metrics(files: RunFiles) -> list[Json]:
    """One table for each task, its best values marked, with a plot of its headline metric."""
    models = files.evaluation.get("models", {})
    shown = wording.in_model_order(models)
    headline = dict(headline_metrics(files))
    tables = []
    for task in sorted({task for model in shown for task in models[model]}):
        inside = [model for model in shown if models[model].get(task)]
        names = list(dict.fromkeys(name for model in inside for name in models[model][task]))
        best = {name: _best_models(models, inside, task, name) for name in names}
        tables.append({
            "task": wording.TASKS.get(task, task),
            "columns": [
                {
                    "name": wording.metric_name(name),
                    "lower": wording.is_lower_better(name),
                    "asked": _population(models, inside, task, name),
                }
                for name in names
            ],
            "absent": [
                f"{wording.model_name(row['model'])}: not there, as {row['why']}."
                for row in files.evaluation.get("absent", [])
                if row["task"] == task
            ],
            "rows": [
                {
                    "model": model,
                    "cells": [_cell(models[model][task].get(name), model in best[name]) for name in names],
                }
                for model in inside
            ],
            "plots": [
                {"title": wording.metric_name(name), "chart": _metric_plot(models, inside, task, name)}
                for name in _headline_first(names, headline.get(task))[:3]
            ],
        })  # fmt: skip
    return tables


def comparisons(files: RunFiles) -> Json:
    """The challenger's paired differences, and what each says: `main`, of the headline metrics, and `more`."""
    rows = [row for row in files.evaluation.get("comparisons", []) if not row.get("slice")]
    if not rows:
        return {}
    headline = headline_metrics(files)
    found: Json = {"main": [], "more": []}
    for row in sorted(rows, key=lambda row: (row["task"], row["metric"])):
        like = [other for other in rows if other["metric"] == row["metric"]]
        reach = max(abs(end) for other in like for end in _ends(other))
        is_main = (row["task"], row["metric"]) in headline
        found["main" if is_main else "more"].append(_comparison(row, reach))
    return found


def _comparison(row: Json, reach: float) -> Json:
    tone = _tone(row)
    return {
        "task": wording.TASKS.get(row["task"], row["task"]),
        "metric": wording.metric_name(row["metric"]),
        "against": wording.model_name(row["against"]),
        "difference": wording.signed(row["difference"]),
        "interval": f"{wording.signed(row['low'])} to {wording.signed(row['high'])}",
        "p_worse": row["p_worse"],
        "tone": tone,
        "says": {"good": "better", "bad": "worse", "plain": "no clear difference"}[tone],
        "chart": _difference_chart(row, reach),
    }


def slices(files: RunFiles) -> Json:
    """Small plots of a metric on slices: `panels` of users and items, `more` for the slices by a declared category."""
    rows = [row for row in files.evaluation.get("slices", []) if wording.is_number(row.get("value"))]
    if not rows:
        return {}
    models = wording.in_model_order({row["model"] for row in rows})
    groups: dict[tuple[str, str, str], list[plots.Dot]] = {}
    for row in sorted(rows, key=lambda row: models.index(row["model"])):
        signal, is_category, _ = row["slice"].partition(" = ")
        group = (row["task"], row["metric"], signal if is_category else "")
        note = f"{wording.count(row['n_users'])} users"
        dot = plots.Dot(row["slice"], row["model"], row["value"], row["low"], row["high"], note)
        groups.setdefault(group, []).append(dot)
    found: Json = {"models": models, "panels": [], "more": []}
    for (task, metric, signal), dots in groups.items():
        name = f"{wording.TASKS.get(task, task)} · {wording.metric_name(metric)}"
        title = f"{name} by {signal}" if signal else name
        beside = [dot for group, others in groups.items() if group[:2] == (task, metric) for dot in others]
        panel = {"title": title, "chart": plots.slices(title, dots, beside=beside)}
        found["more" if signal else "panels"].append(panel)
    return found


def calibration(files: RunFiles) -> Json:
    """The challenger's predicted shares against the observed ones, as a chart and as rows."""
    bins = [bin_ for bin_ in files.evaluation.get("calibration", []) if all(wording.is_number(value) for value in bin_)]
    if not bins:
        return {}
    rows = [(f"{p:.3f}", f"{o:.3f}", wording.signed(o - p), wording.count(n)) for p, o, n in bins]
    return {"chart": plots.calibration(bins), "rows": rows}


def examples(files: RunFiles) -> list[Json]:
    """A few users: what they did last, what they would be shown, and which of it they then chose."""
    return [
        {
            "user": card["user_id"],
            "history": [
                {"title": _title(event), "time": wording.instant(event["time"])[:10] if event.get("time") else ""}
                for event in card["history"][-MAX_HISTORY:][::-1]
            ],
            "recommended": [
                {
                    "title": _title(item),
                    "score": f"{item['score']:.2f}" if wording.is_number(item.get("score")) else "",
                    "hit": bool(item.get("hit")),
                }
                for item in card["recommended"]
            ],
            "n_hits": sum(bool(item.get("hit")) for item in card["recommended"]),
        }
        for card in files.evaluation.get("recommendations", [])
    ]


def change(files: RunFiles, task: str, metric: str) -> Json:
    """The challenger's difference to the champion in one metric, if there is a champion."""
    for row in files.evaluation.get("comparisons", []):
        if (row["task"], row["metric"], row["against"], row.get("slice", "")) == (task, metric, "champion", ""):
            return {"text": f"{wording.signed(row['difference'])} vs champion", "tone": _tone(row)}
    return {}


def _tone(row: Json) -> str:
    low, high = row.get("low"), row.get("high")
    if not (wording.is_number(low) and wording.is_number(high)) or low <= 0 <= high:
        return "plain"
    return "good" if (low > 0) != wording.is_lower_better(row["metric"]) else "bad"


def _ends(row: Json) -> list[float]:
    return [end for end in (row["difference"], row["low"], row["high"]) if wording.is_number(end)] or [0.0]


def _difference_chart(row: Json, reach: float) -> str:
    if not wording.is_number(row["difference"]):
        return ""
    low, high = (end if wording.is_number(end) else None for end in (row["low"], row["high"]))
    return plots.difference(row["difference"], low, high, reach, _tone(row))


def _best_models(models: Json, inside: list[str], task: str, name: str) -> list[str]:
    """The model with the best value, with those that tie in what is printed."""
    values = {model: models[model][task].get(name, {}).get("value") for model in inside}
    finite = {model: value for model, value in values.items() if wording.is_number(value)}
    if not finite:
        return []
    best = list(finite.values())[wording.best_of(name, list(finite.values()))]
    return [model for model, value in finite.items() if wording.number(value) == wording.number(best)]


def _cell(metric: Json | None, best: bool) -> Json:
    if not metric:
        return {}
    known = wording.is_number(metric.get("low")) and wording.is_number(metric.get("high"))
    interval = f"{wording.number(metric['low'])} to {wording.number(metric['high'])}" if known else ""
    return {"value": wording.number(metric.get("value")), "interval": interval, "best": best}


def _population(models: Json, inside: list[str], task: str, name: str) -> str:
    """Whom a metric was computed of: `628 users, 1,412 requests`."""
    cells = [models[model][task].get(name) or {} for model in inside]
    found = [
        f"{wording.count(counts[0])} {what}"
        for what in ("users", "requests")
        if (counts := [cell[f"n_{what}"] for cell in cells if f"n_{what}" in cell])
    ]
    return ", ".join(found)


def _metric_plot(models: Json, inside: list[str], task: str, name: str) -> str:
    found = [(model, models[model][task].get(name) or {}) for model in inside]
    dots = [
        plots.Dot(wording.model_name(model), model, metric["value"], metric.get("low"), metric.get("high"))
        for model, metric in found
        if wording.is_number(metric.get("value"))
    ]
    return plots.whiskers(wording.metric_name(name), dots)


def _headline_first(names: Iterable[str], headline: str | None) -> list[str]:
    return sorted(names, key=lambda name: name != headline)


def _title(item: Json) -> str:
    return str(item["title"]) if item.get("title") else f"item {item.get('item')}"
