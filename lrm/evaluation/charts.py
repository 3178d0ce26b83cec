"""Charts of the evaluation page: a few lines of SVG each, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, ROW, RIGHT = 340, 26, 12


class Whisker(NamedTuple):
    """A value with its interval; `css` names its colour."""

    value: float
    low: float
    high: float
    css: str
    hint: str


def scale(whiskers: Sequence[Whisker], *, zero: bool = False) -> tuple[float, float]:
    """The range that holds all of them with some room; with `zero`, also 0."""
    ends = [end for one in whiskers for end in (one.low, one.high, one.value)] + ([0.0] if zero else [])
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def whiskers(
    rows: Sequence[Whisker],
    span: tuple[float, float],
    *,
    zero: bool = False,
    width: int = WIDTH,
    bar: float | None = None,
) -> str:
    """Dots with whiskers, several in one row of a table on a shared scale; `zero` marks 0, `bar` a margin beside it."""
    low, high = span

    def x(value: float) -> float:
        return RIGHT + (value - low) / (high - low) * (width - 2 * RIGHT)

    height = ROW if len(rows) == 1 else 12 * len(rows) + 6
    parts = (
        [f'<line class="rail" x1="0" x2="{width}" y1="{height / 2:g}" y2="{height / 2:g}"/>'] if len(rows) == 1 else []
    )
    if zero:
        parts.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{height}"/>')
    if bar:
        parts.append(f'<line class="bar" x1="{x(bar):.1f}" x2="{x(bar):.1f}" y1="3" y2="{height - 3}"/>')
    for index, one in enumerate(rows):
        y = height / 2 if len(rows) == 1 else 9 + 12 * index
        parts.append(
            f'<g class="{one.css}"><title>{escape(one.hint)}</title>'
            f'<line class="whisker" x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y:g}" y2="{y:g}"/>'
            f'<circle cx="{x(one.value):.1f}" cy="{y:g}" r="4"/></g>'
        )
    return _svg(width, height, parts, "value and interval")


def calibration(bins: Sequence[Sequence[float]]) -> str:
    """Observed share over predicted probability; a dot's area is its number of rows."""
    size, left, most = 360, 44, max((row[2] for row in bins), default=1)
    top = max([max(row[0], row[1]) for row in bins], default=1.0) * 1.08 or 1.0
    room = size - left - 14

    def place(predicted: float, observed: float) -> tuple[float, float]:
        return left + predicted / top * room, 14 + room - observed / top * room

    (x0, y0), (x1, y1) = place(0, 0), place(top, top)
    parts = [f'<line class="zero" x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        (x, y), label = place(share * top, share * top), f"{share * top:.2f}"
        parts.append(f'<line class="rail" x1="{left}" x2="{size - 14}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        parts.append(f'<text x="{x:.1f}" y="{size - 12}" text-anchor="middle">{label}</text>')
    points = [place(row[0], row[1]) for row in bins]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline class="curve" points="{path}"/>')
    for (x, y), row in zip(points, bins, strict=True):
        hint = f"predicted {row[0]:.3f}, observed {row[1]:.3f}, {row[2]:,} rows"
        radius = 3 + 5 * (row[2] / most) ** 0.5
        parts.append(
            f'<g class="challenger"><title>{hint}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/></g>'
        )
    return _svg(size, size, parts, "calibration curve")


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg role="img" aria-label="{label}" {size}>{"".join(parts)}</svg>'
