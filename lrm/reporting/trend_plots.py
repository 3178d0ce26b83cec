"""The charts of the trend page: one quantity over the runs of a model, run after run, and versions over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from lrm.reporting import svg, wording
from lrm.reporting.backtest_plots import WIDTH, is_labelled
from lrm.reporting.run_files import Json

LEFT, RIGHT, TOP, BOTTOM = 52.0, WIDTH - 10, 12.0, 168.0
MAX_LANES = 8
"""Versions that the chart of service shows: those that were in service last."""


def metrics(runs: Sequence[Json]) -> list[tuple[str, str]]:
    """For each task a chart of its main metric, and one of the gain over the champion of the day."""
    tasks = dict.fromkeys((one["task"], one["metric"]) for run in runs for one in run["metrics"])
    found = []
    for task, metric in tasks:
        said = f"{wording.TASKS.get(task, task)} {wording.metric_name(metric)}"
        rows = [_of(run, task, metric) for run in runs]
        values = [(row.get("challenger"), row.get("champion")) for row in rows]
        gains = [(_as_estimate(row.get("gain")), None) for row in rows]
        found.append((said, _over_runs(said, runs, values)))
        if any(gain for gain, _ in gains):
            found.append((f"{said}: gain over the champion", _over_runs(f"Gain in {said}", runs, gains, zero=True)))
    return found


def bars(rows: Sequence[tuple[Json, Any, str]], say: Callable[[Any], str]) -> str:
    """A number of each run as a bar.

    Args:
        rows: (run, number, a note for the pointer); a number may be unknown.
        say: the number in words.
    """
    most = max((value for _, value, _ in rows if wording.is_number(value)), default=0) or 1
    x_at, y_at = svg.linear(0, len(rows), LEFT, RIGHT), svg.linear(0, most, BOTTOM, TOP)
    parts = [svg.line(LEFT, y_at(most), RIGHT, y_at(most), "grid")]
    parts.append(svg.text(say(most), LEFT, y_at(most) - 3, class_="tick"))
    for i, (run, value, note) in enumerate(rows):
        if wording.is_number(value):
            hint = svg.hint(f"{_day(run)}: {say(value)}{': ' if note else ''}{note}")
            wide, high = x_at(i + 1) - x_at(i), BOTTOM - y_at(value)
            shape = {"x": x_at(i) + wide * 0.15, "y": y_at(value), "width": wide * 0.7, "height": high}
            parts.append(svg.tag("rect", hint, class_="bar t-calm", **shape))
    said = "; ".join(f"{_day(run)} {say(value)}" for run, value, _ in rows if wording.is_number(value))
    axis = svg.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")
    return svg.drawing(WIDTH, BOTTOM + 24, said, *parts, axis, *_days([run for run, *_ in rows], x_at))


def service(moves: Sequence[Json], until: str) -> str:
    """Which version was in service from when to when; "" where none ever was.

    Args:
        moves: every move of the champion, oldest first.
        until: ISO instant up to which the last one is known to be in service.
    """
    if not moves:
        return ""
    begins = [datetime.fromisoformat(move["time"]) for move in moves]
    ends = [*begins[1:], max(datetime.fromisoformat(until), begins[-1])]
    lanes = list(dict.fromkeys(move["version"] for move in reversed(moves)))[:MAX_LANES][::-1]
    first = min(begin for begin, move in zip(begins, moves, strict=True) if move["version"] in lanes)
    x_at = svg.linear(first.timestamp(), ends[-1].timestamp(), LEFT + 14, RIGHT)
    parts, bottom = [], TOP + 26.0 * len(lanes)
    for lane, version in enumerate(lanes):
        y = TOP + 26.0 * (lane + 0.5)
        parts += [
            svg.line(LEFT + 14, y, RIGHT, y, "grid"),
            svg.text(f"version {version}", 0, y + 4, class_="row-label"),
        ]
        for move, begin, end in zip(moves, begins, ends, strict=True):
            if move["version"] != version or begin < first:
                continue
            x, wide = x_at(begin.timestamp()), x_at(end.timestamp()) - x_at(begin.timestamp())
            what = f"{move['action']} by {move['actor']}, {wording.instant(move['time'])}: {move['reason']}"
            bar = svg.tag("rect", x=x, y=y - 7, width=max(wide, 2.0), height=14, class_="bar t-calm")
            parts.append(svg.tag("g", svg.hint(what), bar, svg.marker(x, y, _mark(move), what)))
    for x, day, anchor in ((LEFT + 14, first, "start"), (RIGHT, ends[-1], "end")):
        parts.append(svg.text(f"{day:%Y-%m-%d}", x, bottom + 15, class_="tick", text_anchor=anchor))
    said = "; ".join(f"{wording.instant(move['time'])} version {move['version']} ({move['action']})" for move in moves)
    return svg.drawing(WIDTH, bottom + 24, f"In service: {said}", *parts)


def _over_runs(
    title: str, runs: Sequence[Json], rows: Sequence[tuple[Json | None, Json | None]], *, zero: bool = False
) -> str:
    """Estimates with their intervals, run after run: the challenger's, beside it the champion's on the same data."""
    every = [one[end] for row in rows for one in row if one for end in ("value", "low", "high")]
    low, high = svg.padded([value for value in every if wording.is_number(value)] + [0.0] * zero)
    x_at, y_at = svg.linear(0, len(rows), LEFT, RIGHT), svg.linear(low, high, BOTTOM, TOP)
    parts = []
    for at in svg.ticks(low, high):
        parts.append(svg.line(LEFT, y_at(at), RIGHT, y_at(at), "grid"))
        parts.append(svg.text(svg.tick_label(at), LEFT - 4, y_at(at) + 4, class_="tick", text_anchor="end"))
    if zero:
        parts.append(svg.line(LEFT, y_at(0), RIGHT, y_at(0), "zero"))
    for i, (run, row) in enumerate(zip(runs, rows, strict=True)):
        for model, shift, one in zip(("champion", "challenger"), (0.65, 0.4), reversed(row), strict=True):
            if one and wording.is_number(one["value"]):
                parts.append(_whisker(run, one, x_at(i + shift), y_at, model))
    said = "; ".join(
        f"{_day(run)} {wording.number(one['value'])}" for run, (one, _) in zip(runs, rows, strict=True) if one
    )
    return svg.drawing(WIDTH, BOTTOM + 24, f"{title}: {said}", *parts, *_days(runs, x_at))


def _whisker(run: Json, one: Json, x: float, y_at: svg.Scale, model: str) -> str:
    what = f"{_day(run)} {wording.model_name(model)} {wording.number(one['value'])}, {run['outcome'] or 'no verdict'}"
    parts = []
    if wording.is_number(one["low"]) and wording.is_number(one["high"]):
        what += f" [{wording.number(one['low'])}, {wording.number(one['high'])}]"
        parts = [svg.line(x, y_at(one["low"]), x, y_at(one["high"]), "whisker")]
    size = 4.5 if run["outcome"] == "promote" and model == "challenger" else 2.8
    return svg.tag(
        "g", *parts, svg.marker(x, y_at(one["value"]), model, what, size=size), class_=svg.model_class(model)
    )


def _days(runs: Sequence[Json], x_at: svg.Scale) -> list[str]:
    return [
        svg.text(_day(run)[3:], x_at(i + 0.5), BOTTOM + 15, class_="tick", text_anchor="middle")
        for i, run in enumerate(runs)
        if is_labelled(i, len(runs))
    ]


def _day(run: Json) -> str:
    return str(run["started"])[2:10]


def _of(run: Json, task: str, metric: str) -> Json:
    found: Json = next((one for one in run["metrics"] if (one["task"], one["metric"]) == (task, metric)), {})
    return found


def _as_estimate(gain: Json | None) -> Json | None:
    return {"value": gain["difference"], "low": gain["low"], "high": gain["high"]} if gain else None


def _mark(move: Json) -> str:
    return {"promote": "challenger", "rollback": "champion"}.get(move["action"], "trees")
