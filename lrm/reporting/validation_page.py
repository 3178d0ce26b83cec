"""`validation.html`: one self-contained page about a validation, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lrm.reporting import page
from lrm.reporting.wording import cut
from lrm.schema import EMBEDDING, Signal

TEMPLATE = "validation.html.j2"
N_BARS = 12
"""Bins drawn one by one of a signal with many categories; the rest are drawn as one."""
N_TOP = 3
"""Categories named in the profile."""
OTHER = "(other)"
"""Name of the bin that rare categories share, as `statistics.json` has it."""


def render(
    summary: Mapping[str, Any],
    statistics: Mapping[str, Any],
    signals: Iterable[Signal],
    manifest: Mapping[str, Any],
    *,
    n_quarantined: int,
    material: Mapping[str, float],
) -> str:
    """Make the page as HTML.

    Args:
        summary: content of `validation.json`.
        statistics: content of `statistics.json`.
        signals: as declared; their descriptions stand in the profile.
        manifest: of the examples.
        n_quarantined: rows in `quarantine.parquet`.
        material: the drift that matters: `distance` of shares, `shift` of embeddings.
    """
    failing = [check for check in summary["checks"] if not check["success"]]
    passing = [check for check in summary["checks"] if check["success"]]
    content = {
        "summary": summary,
        "manifest": manifest,
        "failing": sorted(failing, key=lambda check: check["severity"] != "critical"),
        "passing": {table: [c for c in passing if c["table"] == table] for table in _tables(passing)},
        "n_passing": len(passing),
        "drift": [row | {"picture": _compared(row)} for row in summary["drift"]],
        "n_drifted": sum(row["drifted"] for row in summary["drift"]),
        "profile": _profile(statistics, {signal.name: signal for signal in signals}),
        "n_quarantined": n_quarantined,
        "material": material,
    }
    return page.filled(TEMPLATE, content)


def _tables(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(check["table"] for check in checks))


def _profile(statistics: Mapping[str, Any], signals: Mapping[str, Signal]) -> list[dict[str, Any]]:
    return [
        {
            "table": table,
            "rows": content["rows"],
            "signals": [
                {
                    "name": name,
                    "kind": stats["kind"],
                    "description": signals[name].description,
                    "null_rate": stats["null_rate"],
                    "words": _in_words(stats),
                    "picture": _shape(stats),
                }
                for name, stats in content["signals"].items()
            ],
        }
        for table, content in statistics.items()
    ]


def _in_words(stats: Mapping[str, Any]) -> str:
    if stats["kind"] == EMBEDDING:
        return f"{len(stats['mean'])} numbers, spread {stats['variance'] ** 0.5:.3g}"
    if "categories" in stats:
        shares = _shares(stats["counts"][:-1])
        named = zip(stats["categories"][:N_TOP], shares, strict=False)
        top = ", ".join(f"{cut(category)} {share:.1%}" for category, share in named)
        return top + (f", {OTHER} {shares[-1]:.1%}" if shares[-1] else "")
    if stats["minimum"] is None:
        return "no value"
    return "  ·  ".join(_number(stats[name]) for name in ("minimum", "median", "maximum"))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _shape(stats: Mapping[str, Any]) -> Markup:
    """A dense signal's density between its first and last decile, or its most frequent categories."""
    if "categories" in stats:
        shares = _shares(stats["counts"][:-1])[:N_BARS]
        return _drawing(_bars(shares, max(shares, default=0.0), "now"), "shares of the most frequent categories")
    edges = stats.get("edges", [])
    if len(edges) < 3:
        return Markup()
    spans = list(zip(edges, edges[1:], stats["counts"][1:], strict=False))
    densities = [count / (high - low) for low, high, count in spans]
    whole, tallest = edges[-1] - edges[0], max(densities) or 1.0
    boxes = [
        _box(160 * (low - edges[0]) / whole, 160 * (high - low) / whole - 0.5, 36 * density / tallest, "now", "")
        for (low, high, _), density in zip(spans, densities, strict=True)
    ]
    return _drawing(boxes, f"density from {edges[0]:.4g} to {edges[-1]:.4g}")


def _compared(row: Mapping[str, Any]) -> Markup:
    """The champion's shares of the bins beside the current ones."""
    if "bins" not in row:
        return Markup()
    labels, before, now = (_folded(row[key]) for key in ("bins", "before", "now"))
    tallest = max(*before, *now)
    titles = [f"{label}: {b:.1%} before, {n:.1%} now" for label, b, n in zip(labels, before, now, strict=True)]
    boxes = [
        *_bars(before, tallest, "before", half=0, titles=titles),
        *_bars(now, tallest, "now", half=1, titles=titles),
    ]
    return _drawing(boxes, "shares of the bins before and now")


def _folded(values: Sequence[Any]) -> list[Any]:
    """At most `N_BARS` bins: the rarer categories join all others; the last bin is that of nulls."""
    if len(values) <= N_BARS:
        return list(values)
    rest = values[N_BARS - 2 : -1]
    return [*values[: N_BARS - 2], OTHER if isinstance(rest[0], str) else sum(rest), values[-1]]


def _bars(
    shares: Sequence[float], tallest: float, kind: str, *, half: int | None = None, titles: Sequence[str] = ()
) -> list[Markup]:
    step = 160 / max(len(shares), 1)
    width = (step - 2) if half is None else (step - 2) / 2
    return [
        _box(index * step + 1 + (half or 0) * width, width, 36 * share / (tallest or 1.0), kind, title)
        for index, (share, title) in enumerate(zip(shares, titles or [f"{share:.1%}" for share in shares], strict=True))
    ]


def _box(left: float, width: float, height: float, kind: str, title: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(kind, left, 37 - height, max(width, 0.5), max(height, 0.5), title)


def _drawing(boxes: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg class="bars" viewBox="0 0 160 38" role="img" aria-label="{}">{}</svg>').format(
        label, Markup().join(boxes)
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [count / total for count in counts]
