"""The workflow as a drawing: boxes with arrows on a wide page, one column of boxes on a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from lrm.reporting import svg
from lrm.reporting.run_files import Json
from lrm.reporting.wording import seconds

BOX_WIDTH, BOX_HEIGHT = 202.0, 60.0
_COLUMN, _ROW, _MARGIN = 230.0, 96.0, 6.0
_PLACES = {
    "find_champion": (0, 0),
    "retrieve_features": (0, 1),
    "validate_data": (1, 1),
    "pretrain_token_factory": (2, 1),
    "train_lrm": (3, 1),
    "check_in_staging": (4, 1),
    "evaluate_model": (0, 2),
    "register_model": (1, 2),
    "promote_model": (2, 2),
    "roll_out": (3, 2),
    "report_run": (4, 2),
}
"""Column and row of each step on the wide drawing."""
_ICONS = {
    "succeeded": "M-4 0.5l2.8 3 5.4-6.4",
    "reused": "M3.6 -2.2a4.4 4.4 0 1 0 0.9 3.2M4.4 -4.6v2.8h-2.8",
    "failed": "M-3.4 -3.4l6.8 6.8M3.4 -3.4l-6.8 6.8",
    "interrupted": "M0 -4.4v5.2M0 3.6v0.6",
    "skipped": "M-3.6 0h7.2",
    "kept": "M-3.6 -2h7.2M-3.6 2h7.2",
}


def wide(steps: Sequence[Json]) -> str:
    """The graph with its three rows: the champion, the model being made, the model being judged and put to use."""
    at = {name: (_MARGIN + column * _COLUMN, _MARGIN + row * _ROW) for name, (column, row) in _PLACES.items()}
    ran = {step["name"] for step in steps if step["state"] != "skipped"}
    order = list(_PLACES)
    edges = [_right(at[a], at[b], is_on={a, b} <= ran) for row in (order[1:6], order[6:]) for a, b in pairwise(row)]
    edges.append(_fold(at["check_in_staging"], at["evaluate_model"], is_on="evaluate_model" in ran))
    edges += [_down(at["find_champion"], at[name], is_on=name in ran) for name in ("check_in_staging", "validate_data")]
    if "roll_out" in ran and "promote_model" not in ran:
        edges.append(_bypass(at["register_model"], at["roll_out"]))
    boxes = [_box(step, *at[step["name"]]) for step in steps if step["name"] in at]
    width = _MARGIN * 2 + _COLUMN * 4 + BOX_WIDTH
    height = _MARGIN * 2 + _ROW * 2 + BOX_HEIGHT + 16
    return svg.drawing(width, height, _said(steps), *edges, *boxes, class_="workflow wide")


def narrow(steps: Sequence[Json]) -> str:
    """The same steps as one column."""
    width, step_height = 340.0, BOX_HEIGHT + 18
    parts = []
    for i, step in enumerate(steps):
        y = _MARGIN + i * step_height
        if i:
            parts.append(_arrow([(width / 2, y - 18), (width / 2, y)]))
        parts.append(_box(step, _MARGIN, y, width=width - 2 * _MARGIN))
    height = step_height * len(steps) - 18 + 2 * _MARGIN
    return svg.drawing(width, height, _said(steps), *parts, class_="workflow narrow")


def icon(state: str) -> str:
    """The mark of a state, as a small drawing of its own."""
    shape = _mark(state, 10, 10)
    return svg.tag("svg", shape, class_=f"icon s-{_known(state)}", viewBox="0 0 20 20", aria_hidden="true")


def _box(step: Mapping[str, object], x: float, y: float, *, width: float = BOX_WIDTH) -> str:
    state, spent = str(step["state"]), step["seconds"]
    took = f"{state} · {seconds(spent)}" if spent is not None else state
    if state == "reused":
        took = f"reused · took {seconds(spent)}"
    return svg.tag(
        "g",
        svg.hint(f"{step['name']}: {took}"),
        svg.tag("rect", x=x, y=y, width=width, height=BOX_HEIGHT, rx=10),
        _mark(state, x + 20, y + 22),
        svg.text(step["name"], x + 36, y + 26.5, class_="step-name"),
        svg.text(took, x + 36, y + 44, class_="step-time"),
        class_=f"node s-{_known(state)}",
    )


def _mark(state: str, x: float, y: float) -> str:
    disc = svg.tag("circle", cx=x, cy=y, r=8.5, class_="disc")
    sign = svg.tag("path", d=_ICONS[_known(state)], transform=f"translate({x:g} {y:g})", class_="sign")
    return disc + sign


def _known(state: str) -> str:
    return state if state in _ICONS else "skipped"


def _right(start: tuple[float, float], end: tuple[float, float], *, is_on: bool) -> str:
    y = start[1] + BOX_HEIGHT / 2
    return _arrow([(start[0] + BOX_WIDTH, y), (end[0], y)], is_on=is_on)


def _down(start: tuple[float, float], end: tuple[float, float], *, is_on: bool) -> str:
    """Along the upper row, then down into a step of the row below."""
    y, to = start[1] + BOX_HEIGHT / 2, end[0] + BOX_WIDTH / 2
    return _arrow([(start[0] + BOX_WIDTH, y), (to, y), (to, end[1])], is_on=is_on)


def _fold(start: tuple[float, float], end: tuple[float, float], *, is_on: bool) -> str:
    """From the end of one row back to the start of the next."""
    middle = (start[1] + BOX_HEIGHT + end[1]) / 2
    x, to = start[0] + BOX_WIDTH / 2, end[0] + BOX_WIDTH / 2
    return _arrow([(x, start[1] + BOX_HEIGHT), (x, middle), (to, middle), (to, end[1])], is_on=is_on)


def _bypass(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Under the step between two others, which did not run."""
    below = start[1] + BOX_HEIGHT
    x, to = start[0] + BOX_WIDTH / 2, end[0] + BOX_WIDTH / 2
    return _arrow([(x, below), (x, below + 14), (to, below + 14), (to, below)])


def _arrow(points: Sequence[tuple[float, float]], *, is_on: bool = True) -> str:
    (x0, y0), (x, y) = points[-2:]
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    back = x - 6 * dx, y - 6 * dy
    corners = [(x, y), (back[0] - 3.5 * dy, back[1] + 3.5 * dx), (back[0] + 3.5 * dy, back[1] - 3.5 * dx)]
    path = svg.tag("polyline", points=_points([*points[:-1], back]), class_="shaft")
    return svg.tag(
        "g", path, svg.tag("polygon", points=_points(corners), class_="head"), class_="edge" if is_on else "edge off"
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _said(steps: Sequence[Json]) -> str:
    return "Workflow: " + "; ".join(f"{step['name']} {step['state']}" for step in steps)
