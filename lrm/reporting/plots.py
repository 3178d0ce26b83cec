"""The report's charts, each a small SVG panel that a phone shows at full size.

Values are plain numbers; a value that is None or not finite is left out of the drawing, never drawn as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lrm.reporting import svg
from lrm.reporting.wording import is_number, number

WIDTH = 360.0
MAX_POINTS = 160
"""Points of a drawn curve at most; a longer one is drawn by the means of equal stretches."""


class Dot(NamedTuple):
    """One estimate with its interval; `low` and `high` may be unknown."""

    row: str
    model: str
    value: float
    low: float | None
    high: float | None
    note: str = ""


def curve(quantity: str, series: Mapping[str, Sequence[Sequence[float]]], *, kept_at: int | None = None) -> str:
    """A quantity over optimizer steps, one line for each group (train, validation).

    Args:
        quantity: what is drawn, in words.
        series: {group: [[step, value], ...]}.
        kept_at: position in the validation series of the weights that were kept, which is ringed.
    """
    lines = {group: _thinned(_finite(points)) for group, points in series.items()}
    lines = {group: points for group, points in lines.items() if points}
    every = [point for points in lines.values() for point in points]
    x_low, x_high = min((x for x, _ in every), default=0.0), max((x for x, _ in every), default=1.0)
    y_low, y_high = svg.padded(y for _, y in every)
    height, left, right, top, bottom = 216.0, 46.0, WIDTH - 18, 20.0, 180.0
    x_at, y_at = svg.linear(x_low, x_high, left, right), svg.linear(y_low, y_high, bottom, top)
    parts = _grid_y(y_low, y_high, y_at, left, right) + _axis_x(x_low, x_high, x_at, bottom, "step")
    said = []
    for group, points in lines.items():
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(svg.tag("polyline", svg.hint(group), points=path, class_=f"line g-{_group_class(group)}"))
        if len(points) <= 30:
            parts += [
                svg.tag(
                    "circle",
                    svg.hint(f"{group}: {y:.4g} at step {x:,.0f}"),
                    cx=x_at(x),
                    cy=y_at(y),
                    r=2.6,
                    class_=f"dot g-{_group_class(group)}",
                )
                for x, y in points
            ]
        said.append(f"{group} ends at {points[-1][1]:.4g}")
    kept = _finite(series.get("validation", [])[kept_at : kept_at + 1]) if kept_at is not None else []
    for x, y in kept:
        parts.append(svg.line(x_at(x), top, x_at(x), bottom, "best-line"))
        what = svg.hint(f"best epoch: {y:.4g} at step {x:,.0f}")
        parts.append(svg.tag("circle", what, cx=x_at(x), cy=y_at(y), r=6.0, class_="best-ring"))
        label_at = min(max(x_at(x), left + 40), right - 34)
        parts.append(svg.text(f"best epoch {y:.4g}", label_at, top - 8, class_="best-label", text_anchor="middle"))
        said.append(f"best epoch {y:.4g} at step {x:,.0f}")
    return svg.drawing(WIDTH, height, f"{quantity}: {'; '.join(said)}", *parts)


def whiskers(title: str, dots: Sequence[Dot]) -> str:
    """Estimates of one metric on interval whiskers, a labelled row each."""
    step, left, right, top = 30.0, 126.0, WIDTH - 58, 6.0
    bottom = top + step * len(dots)
    x_at, parts = _axis_of(dots, left, right, top, bottom)
    for i, dot in enumerate(dots):
        y = top + step * (i + 0.5)
        parts.append(svg.text(svg.clipped(dot.row, 20), 0, y + 4, class_="row-label"))
        parts.append(_whisker(dot, x_at, y))
        parts.append(svg.text(number(dot.value), WIDTH - 2, y + 4, class_="value", text_anchor="end"))
    said = "; ".join(f"{dot.row} {_estimate(dot)}" for dot in dots)
    return svg.drawing(WIDTH, bottom + 24, f"{title}: {said}", *parts)


def slices(title: str, dots: Sequence[Dot], *, beside: Sequence[Dot] = ()) -> str:
    """Estimates of one metric on slices: under each slice's label, one whisker for each model.

    Args:
        title: what is drawn, in words.
        dots: grouped by row, their models in one order throughout.
        beside: dots of the panels beside this one, whose scale it shares.
    """
    rows = list(dict.fromkeys(dot.row for dot in dots))
    n_models = len({dot.model for dot in dots})
    step, left, right, top = 30.0 + 11.0 * n_models, 8.0, WIDTH - 8, 2.0
    bottom = top + step * len(rows)
    x_at, parts = _axis_of([*dots, *beside], left, right, top, bottom)
    for i, row in enumerate(rows):
        inside = [dot for dot in dots if dot.row == row]
        start = top + step * i
        parts.append(svg.line(0, start, WIDTH, start, "rule"))
        label = svg.tag("g", svg.hint(row), svg.text(svg.clipped(row, 40), 0, start + 16, class_="row-label"))
        parts += [label, svg.text(inside[0].note, WIDTH, start + 16, class_="tick", text_anchor="end")]
        parts += [_whisker(dot, x_at, start + 28 + 11.0 * j) for j, dot in enumerate(inside)]
    said = "; ".join(f"{dot.row} {dot.model} {_estimate(dot)}" for dot in dots)
    return svg.drawing(WIDTH, bottom + 24, f"{title}: {said}", *parts)


def calibration(bins: Sequence[Sequence[float]]) -> str:
    """Predicted against observed shares of positives; a dot's area, and a bar below it, is its number of rows.

    Args:
        bins: (predicted, observed, rows), at least one, all finite.
    """
    limit = min(1.0, 1.1 * max(max(p, o) for p, o, _ in bins)) or 1.0
    left, right, top, bottom, floor = 46.0, WIDTH - 12, 10.0, 232.0, 286.0
    x_at, y_at = svg.linear(0, limit, left, right), svg.linear(0, limit, bottom, top)
    parts = _grid_y(0, limit, y_at, left, right)
    parts.append(svg.line(x_at(0), y_at(0), x_at(limit), y_at(limit), "diagonal"))
    most = max(n for *_, n in bins) or 1.0
    path = " ".join(f"{x_at(p):.1f},{y_at(o):.1f}" for p, o, _ in bins)
    parts.append(svg.tag("polyline", points=path, class_="line m-challenger"))
    for p, o, n in bins:
        what = f"predicted {p:.3f}, observed {o:.3f}, {n:,.0f} rows"
        tall = max(1.0, 34.0 * n / most)
        parts.append(
            svg.tag("rect", svg.hint(what), x=x_at(p) - 5, y=floor - tall, width=10, height=tall, class_="bar")
        )
        radius = 3.0 + 4.0 * math.sqrt(n / most)
        dot = svg.tag("circle", cx=x_at(p), cy=y_at(o), r=radius)
        parts.append(svg.tag("g", svg.hint(what), dot, class_="mark m-challenger"))
    parts.append(svg.line(left, floor, right, floor, "axis"))
    for at in svg.ticks(0, limit):
        parts.append(svg.text(svg.tick_label(at), x_at(at), floor + 14, class_="tick", text_anchor="middle"))
    parts.append(
        svg.text(
            "predicted share (bars: rows)", (left + right) / 2, floor + 30, class_="axis-label", text_anchor="middle"
        )
    )
    said = "; ".join(f"predicted {p:.2f} observed {o:.2f}" for p, o, _ in bins)
    return svg.drawing(WIDTH, floor + 38, f"Calibration: {said}", *parts)


def difference(
    value: float, low: float | None, high: float | None, reach: float, tone: str, *, bar: float | None = None
) -> str:
    """One difference around zero, as wide as a table cell; `reach` is the largest difference its column shows.

    `bar` marks what the interval is held against.
    """
    wide, y = 168.0, 11.0
    x_at = svg.linear(-reach or -1.0, reach or 1.0, 6.0, wide - 6.0)
    parts = [svg.line(x_at(0), 1, x_at(0), 21, "zero")]
    if bar:
        parts.append(svg.line(x_at(bar), 3, x_at(bar), 19, "threshold"))
    if low is not None and high is not None:
        parts.append(svg.line(x_at(low), y, x_at(high), y, f"whisker t-{tone}"))
    parts.append(svg.tag("circle", cx=x_at(value), cy=y, r=4.2, class_=f"dot t-{tone}"))
    return svg.drawing(wide, 22, f"difference {value:+.4f}", *parts, class_="inline")


def bar(value: float, most: float, *, threshold: float | None = None, tone: str = "plain") -> str:
    """A bar as wide as a table cell, with its threshold as a tick."""
    wide = 168.0
    x_at = svg.linear(0.0, most or 1.0, 0.0, wide)
    parts = [svg.tag("rect", x=0, y=6, width=wide, height=8, rx=4, class_="track")]
    parts.append(svg.tag("rect", x=0, y=6, width=max(2.0, x_at(value)), height=8, rx=4, class_=f"bar t-{tone}"))
    if threshold is not None:
        parts.append(svg.line(x_at(threshold), 2, x_at(threshold), 18, "zero"))
    return svg.drawing(wide, 20, f"{value:g} of {most:g}", *parts, class_="inline")


def _whisker(dot: Dot, x_at: svg.Scale, y: float) -> str:
    parts = []
    if is_number(dot.low) and is_number(dot.high):
        ends = x_at(dot.low), x_at(dot.high)
        parts = [svg.line(ends[0], y, ends[1], y, "whisker")]
        parts += [svg.line(end, y - 3, end, y + 3, "whisker") for end in ends]
    parts.append(svg.marker(x_at(dot.value), y, dot.model, f"{dot.model}: {_estimate(dot)}"))
    return svg.tag("g", *parts, class_=svg.model_class(dot.model))


def _estimate(dot: Dot) -> str:
    if not (is_number(dot.low) and is_number(dot.high)):
        return number(dot.value)
    return f"{number(dot.value)} [{number(dot.low)}, {number(dot.high)}]"


def _axis_of(dots: Sequence[Dot], left: float, right: float, top: float, bottom: float) -> tuple[svg.Scale, list[str]]:
    """The horizontal scale that holds all intervals, and its grid."""
    low, high = svg.padded(end for dot in dots for end in (dot.value, dot.low, dot.high) if is_number(end))
    x_at = svg.linear(low, high, left, right)
    parts = []
    for at in svg.ticks(low, high, n=3):
        parts.append(svg.line(x_at(at), top, x_at(at), bottom, "grid"))
        parts.append(svg.text(svg.tick_label(at), x_at(at), bottom + 15, class_="tick", text_anchor="middle"))
    return x_at, parts


def _grid_y(low: float, high: float, y_at: svg.Scale, left: float, right: float) -> list[str]:
    parts = []
    for at in svg.ticks(low, high):
        parts.append(svg.line(left, y_at(at), right, y_at(at), "grid"))
        parts.append(svg.text(svg.tick_label(at), left - 6, y_at(at) + 4, class_="tick", text_anchor="end"))
    return parts


def _axis_x(low: float, high: float, x_at: svg.Scale, bottom: float, label: str) -> list[str]:
    left, right = x_at(low), x_at(high)
    parts = [svg.line(left, bottom, right, bottom, "axis")] if right > left else []
    for at in svg.ticks(low, high):
        parts.append(svg.text(svg.tick_label(at), x_at(at), bottom + 15, class_="tick", text_anchor="middle"))
    parts.append(svg.text(label, (left + right) / 2, bottom + 31, class_="axis-label", text_anchor="middle"))
    return parts


def _finite(points: Sequence[Sequence[Any]]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points if is_number(x) and is_number(y)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MAX_POINTS:
        return points
    size = math.ceil(len(points) / MAX_POINTS)
    stretches = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in some) / len(some), sum(y for _, y in some) / len(some)) for some in stretches]


def _group_class(group: str) -> str:
    return "validation" if group == "validation" else "train"
