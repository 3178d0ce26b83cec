"""The few words of SVG that the charts are written in.

Charts are drawn by hand rather than by a plotting library: they then weigh a few kilobytes, take their colours from the
page's style sheet (so light and dark need one drawing), and their text stays text. Everything that enters an attribute
or a text node passes through `tag` or `text`, which escape it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from html import escape

Scale = Callable[[float], float]


def tag(name: str, *children: str, **attributes: object) -> str:
    """One element. `children` are finished markup; `class_` is written `class`, `stroke_width` `stroke-width`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    return f"<{name}{written}>{''.join(children)}</{name}>"


def text(content: object, x: float, y: float, **attributes: object) -> str:
    """A text node at a point, escaped."""
    return tag("text", escape(str(content)), x=x, y=y, **attributes)


def hint(content: object) -> str:
    """What a browser shows while the pointer rests on the parent element, escaped."""
    return tag("title", escape(str(content)))


def drawing(width: float, height: float, label: str, *children: str, class_: str = "chart") -> str:
    """A whole picture; `label` is what a screen reader says instead of it."""
    return tag("svg", *children, class_=class_, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Map [low, high] of the data to [start, end] of the drawing; one single value maps to the middle."""
    if high <= low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def padded(values: Iterable[float], *, share: float = 0.06) -> tuple[float, float]:
    """The range of the finite values, widened on both sides; (0, 1) where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def ticks(low: float, high: float, *, n: int = 4) -> list[float]:
    """About `n` round numbers inside [low, high]."""
    if high <= low:
        return [low]
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((1 * power, 2 * power, 2.5 * power, 5 * power, 10 * power), key=lambda size: abs(size - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float) -> str:
    """A short form: 12000 is 12k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def clipped(label: str, n_letters: int) -> str:
    """The label, cut to a number of letters."""
    return label if len(label) <= n_letters else label[: n_letters - 1].rstrip() + "…"


def marker(x: float, y: float, model: str, what: str, *, size: float = 4.5) -> str:
    """A model's mark at a point: its own shape as well as its own colour, so that either tells models apart."""
    return tag("g", hint(what), _shape(x, y, model, size), class_=f"mark {model_class(model)}")


def swatch(model: str) -> str:
    """A model's mark as a small drawing of its own, for a legend."""
    shape = tag("g", _shape(7, 7, model, 4.5), class_=f"mark {model_class(model)}")
    return tag("svg", shape, class_="swatch", viewBox="0 0 14 14", aria_hidden="true")


def model_class(model: str) -> str:
    """The style class that carries a model's colour; models that the page does not know share one."""
    known = ("challenger", "champion", "popular", "ease_markov", "trees")
    return f"m-{model}" if model in known else "m-other"


def _shape(x: float, y: float, model: str, size: float) -> str:
    if model == "challenger":
        return tag("circle", cx=x, cy=y, r=size)
    if model == "popular":
        return tag("rect", x=x - size * 0.85, y=y - size * 0.85, width=size * 1.7, height=size * 1.7)
    corners = {
        "champion": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "trees": ((-1.1, -0.9), (1.1, -0.9), (0, 1.1)),
        "own_history": ((-0.9, -1.1), (1.1, 0), (-0.9, 1.1)),
        "history_by_ranker": ((0.9, -1.1), (-1.1, 0), (0.9, 1.1)),
        "history_by_trees": ((-1.1, -1), (1.1, -1), (-1.1, 1), (1.1, 1)),
    }.get(model, ((-1.1, 0.9), (1.1, 0.9), (0, -1.1)))
    return tag("polygon", points=" ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners))


def _short(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
