"""The charts of a backtest: who was in service when, gains seen and gains shown, drift."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrm.reporting import svg
from lrm.reporting.run_files import Json
from lrm.reporting.wording import is_number, signed

WIDTH = 360.0
MAX_LABELS = 8
"""Days that fit side by side under a chart."""
MAX_NUMBERS = 20
"""Bars that carry their number; of more, the pointer shows it."""
SEEN, SHOWN = "challenger", "champion"
"""The marks of a gain that the gate saw, and of what the next window showed."""


def service(windows: Sequence[Json]) -> str:
    """Which version was in service from each window's end to the next: a bar for each version, a dot for each keep."""
    left, right, top, step = 66.0, WIDTH - 6, 8.0, 26.0
    ends = [day_of(window) for window in windows]
    x_at = svg.linear(0, len(windows), left, right)
    lanes = list(dict.fromkeys(version for window in windows if (version := after(window))))
    bottom = top + step * max(1, len(lanes))
    parts = []
    for i, end in enumerate(ends):
        parts.append(svg.line(x_at(i), top, x_at(i), bottom, "grid"))
        if is_labelled(i, len(ends)):
            parts.append(svg.text(end[3:], x_at(i), bottom + 15, class_="tick", text_anchor="middle"))
    for lane, version in enumerate(lanes):
        y = top + step * (lane + 0.5)
        parts.append(svg.text(f"version {version}", 0, y + 4, class_="row-label"))
        for i, window in enumerate(windows):
            if after(window) != version:
                continue
            what = f"version {version} from {ends[i]}: {window['verdict']}"
            bar = svg.tag("rect", x=x_at(i), y=y - 7, width=x_at(i + 1) - x_at(i), height=14, class_="bar t-calm")
            mark = svg.marker(x_at(i), y, SEEN, what) if window["verdict"] == "promote" else ""
            parts.append(svg.tag("g", svg.hint(what), bar, mark))
    said = "; ".join(f"{end} version {after(window) or 'none'}" for end, window in zip(ends, windows, strict=True))
    return svg.drawing(WIDTH, bottom + 24, f"In service: {said}", *parts)


def gains(windows: Sequence[Json]) -> str:
    """Challenger minus champion in each window: as the gate saw it, and on the window that came next."""
    rows = [window for window in windows if window["gain"]]
    left, right, top, step = 66.0, WIDTH - 56, 6.0, 44.0
    bottom = top + step * max(1, len(rows))
    every = [one[end] for window in rows for one in _both(window) for end in ("difference", "low", "high")]
    low, high = svg.padded([0.0, *(value for value in every if is_number(value))])
    x_at = svg.linear(low, high, left, right)
    parts = []
    for at in svg.ticks(low, high, n=3):
        parts.append(svg.line(x_at(at), top, x_at(at), bottom, "grid"))
        parts.append(svg.text(svg.tick_label(at), x_at(at), bottom + 15, class_="tick", text_anchor="middle"))
    parts.append(svg.line(x_at(0), top, x_at(0), bottom, "zero"))
    for i, window in enumerate(rows):
        start = top + step * i
        parts.append(svg.line(0, start, WIDTH, start, "rule"))
        parts.append(svg.text(day_of(window), 0, start + 18, class_="row-label"))
        parts.append(svg.text(window["verdict"], 0, start + 33, class_="tick"))
        for y, mark, one in zip((start + 15, start + 30), (SEEN, SHOWN), _both(window), strict=False):
            parts.append(_whisker(one, x_at, y, mark))
            parts.append(svg.text(signed(one["difference"]), WIDTH - 2, y + 4, class_="tick", text_anchor="end"))
    said = "; ".join(
        f"{day_of(window)} {window['verdict']} {' then '.join(signed(one['difference']) for one in _both(window))}"
        for window in rows
    )
    return svg.drawing(WIDTH, bottom + 24, f"Gains: {said}", *parts)


def drift(windows: Sequence[Json]) -> str:
    """How many signals had drifted from the champion's data at each window's end."""
    rows = [window for window in windows if window["n_compared"]]
    left, right, top, bottom = 26.0, WIDTH - 6, 14.0, 150.0
    most = max((window["n_drifted"] for window in rows), default=0) or 1
    y_at = svg.linear(0, most, bottom, top)
    x_at = svg.linear(0, max(1, len(rows)), left, right)
    parts = []
    for at in svg.ticks(0, most):
        if at == int(at):
            parts.append(svg.line(left, y_at(at), right, y_at(at), "grid"))
            parts.append(svg.text(svg.tick_label(at), left - 6, y_at(at) + 4, class_="tick", text_anchor="end"))
    for i, window in enumerate(rows):
        n, wide = window["n_drifted"], x_at(i + 1) - x_at(i)
        what = f"{day_of(window)}: {n} of {window['n_compared']} signals"
        bar = svg.tag(
            "rect",
            svg.hint(f"{what}: {', '.join(window['drifted'])}" if n else what),
            x=x_at(i) + wide * 0.2,
            y=y_at(n),
            width=wide * 0.6,
            height=bottom - y_at(n),
            class_="bar t-warn",
        )
        middle = x_at(i) + wide / 2
        parts.append(bar)
        if len(rows) <= MAX_NUMBERS:
            parts.append(svg.text(n, middle, y_at(n) - 4, class_="tick", text_anchor="middle"))
        if is_labelled(i, len(rows)):
            parts.append(svg.text(day_of(window)[3:], middle, bottom + 15, class_="tick", text_anchor="middle"))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    said = "; ".join(f"{day_of(window)} {window['n_drifted']}" for window in rows)
    return svg.drawing(WIDTH, bottom + 24, f"Drifted signals: {said}", *parts)


def after(window: Json) -> str:
    """The version in service once the window's run had ended, "" for none."""
    return str(window["version"] if window["verdict"] == "promote" else window["champion_before"])


def day_of(window: Json) -> str:
    """The day on which a window ends, short enough for an axis."""
    return str(window["as_of"])[2:10]


def is_labelled(place: int, n: int) -> bool:
    """Whether the day at this place of an axis with `n` of them is written under it."""
    return place % math.ceil(n / MAX_LABELS) == 0


def _both(window: Json) -> list[Json]:
    return [one for one in (window["gain"], window["later"]) if one]


def _whisker(one: Json, x_at: svg.Scale, y: float, mark: str) -> str:
    what = f"{signed(one['difference'])} [{signed(one['low'])}, {signed(one['high'])}], {one['n_users']:,} users"
    parts = []
    if is_number(one["low"]) and is_number(one["high"]):
        ends = x_at(one["low"]), x_at(one["high"])
        parts = [svg.line(ends[0], y, ends[1], y, "whisker"), *(svg.line(x, y - 3, x, y + 3, "whisker") for x in ends)]
    return svg.tag("g", *parts, svg.marker(x_at(one["difference"]), y, mark, what), class_=svg.model_class(mark))
