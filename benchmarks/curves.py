"""Learning curves as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 380, 56, 44, 16
COLOURS = ("#0b6e99", "#c2571a", "#5b8c3e", "#8457a3", "#a33a4a")


def curves_page(title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Points (CPU-seconds, NDCG@10) of each model as lines from a common origin."""
    points = [point for curve in curves.values() for point in curve]
    most_x, most_y = (max((point[axis] for point in points), default=1.0) * 1.05 for axis in (0, 1))

    def place(point: tuple[float, float]) -> str:
        x = LEFT + point[0] / most_x * (WIDTH - LEFT - 16)
        return f"{x:.1f},{HEIGHT - BOTTOM - point[1] / most_y * (HEIGHT - BOTTOM - TOP):.1f}"

    parts = []
    for step in range(5):
        x, y = (float(value) for value in place((most_x * step / 4, most_y * step / 4)).split(","))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{most_y * step / 4:.3f}</text>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{most_x * step / 4:.0f}</text>')
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        line = " ".join(place(point) for point in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 12}" y="{TOP + 16 + 18 * index}" fill="{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">CPU-seconds of training</text>')
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<body style="font: 14px sans-serif"><h1 style="font-size: 18px">{escape(title)}: masked NDCG@10</h1>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="12" role="img" '
        f'aria-label="masked NDCG@10 by CPU-seconds">{"".join(parts)}</svg></body></html>\n'
    )
