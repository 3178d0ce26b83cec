"""Curves as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 380, 56, 44, 16
COLOURS = ("#0b6e99", "#c2571a", "#5b8c3e", "#8457a3", "#a33a4a")


def curves_page(
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str = "CPU-seconds of training",
    up: str = "masked NDCG@10",
    by_decade: bool = False,
) -> str:
    """Points of each curve as lines from a common origin; `by_decade` spaces the horizontal axis by powers of ten."""
    points = [point for curve in curves.values() for point in curve]
    most_x, most_y = (max((point[axis] for point in points), default=1.0) * 1.05 for axis in (0, 1))
    first = math.floor(math.log10(min(x for x, _ in points))) if by_decade else 0
    decades = [10.0**power for power in range(first, math.floor(math.log10(most_x)) + 1)] if by_decade else []

    def share(x: float) -> float:
        return (math.log10(x) - first) / (math.log10(most_x) - first) if by_decade else x / most_x

    def place(point: tuple[float, float]) -> str:
        x = LEFT + share(point[0]) * (WIDTH - LEFT - 16)
        return f"{x:.1f},{HEIGHT - BOTTOM - point[1] / most_y * (HEIGHT - BOTTOM - TOP):.1f}"

    parts = []
    for x_value in decades or [most_x * step / 4 for step in range(5)]:
        x = place((x_value, 0.0)).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x_value:,.0f}</text>')
    for step in range(5):
        y = float(place((most_x, most_y * step / 4)).split(",")[1])
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{most_y * step / 4:.3f}</text>')
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        line = " ".join(place(point) for point in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 12}" y="{TOP + 16 + 18 * index}" fill="{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>')
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<body style="font: 14px sans-serif"><h1 style="font-size: 18px">{escape(title)}: {escape(up)}</h1>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="12" style="overflow: visible" role="img" '
        f'aria-label="{escape(up)} by {escape(across)}">{"".join(parts)}</svg></body></html>\n'
    )
