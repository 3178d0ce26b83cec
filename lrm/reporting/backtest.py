"""The page of a backtest: every decision of a simulated year, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from lrm.reporting import backtest_plots as plots
from lrm.reporting.page import filled
from lrm.reporting.run_files import Json
from lrm.reporting.wording import UNKNOWN, metric_name, signed

TEMPLATE = "backtest.html.j2"
FALSE, CONFIRMED, MISSED, RIGHT, OPEN = "false promotion", "confirmed", "missed gain", "rightly kept", "cannot tell"
TONES = {FALSE: "bad", CONFIRMED: "good", MISSED: "warn", RIGHT: "good", OPEN: "plain"}


def render(told: Json) -> str:
    """The page, from `backtest.json`."""
    windows, settings = told["windows"], told["settings"]
    n_left = settings["windows"] - len(windows)
    return filled(
        TEMPLATE,
        {
            "settings": settings,
            "tone": "warn" if count(windows, FALSE) else "calm",
            "title": in_words(told),
            "progress": f"{n_left} of {settings['windows']} windows are still to come." if n_left else "",
            "tiles": tiles(windows),
            "metric": _deciding(windows),
            "service": plots.service(windows),
            "gains": plots.gains(windows),
            "drift": plots.drift(windows),
            "rows": [row(window) for window in windows],
        },
    )


def in_words(told: Json) -> str:
    """The outcome in a sentence."""
    windows = told["windows"]
    promoted = [window for window in windows if window["verdict"] == "promote"]
    judged = [window for window in promoted if window["later"]]
    return (
        f"{len(promoted)} of {len(windows)} trainings were promoted; false in the window that came next: "
        f"{count(windows, FALSE)} of {len(judged)}"
    )


def reading(window: Json) -> str:
    """What the next window says of a decision; "" where nothing was compared, or there is no next window."""
    shown = window["later"]
    if not shown:
        return ""
    if window["verdict"] == "promote":
        return FALSE if shown["high"] < 0 else CONFIRMED if shown["low"] > 0 else OPEN
    return MISSED if shown["low"] > 0 else RIGHT if shown["high"] < 0 else OPEN


def count(windows: Sequence[Json], what: str) -> int:
    """How many decisions have that reading."""
    return sum(reading(window) == what for window in windows)


def tiles(windows: Sequence[Json]) -> list[Json]:
    """The numbers that a person asks for first."""
    promoted = [window for window in windows if window["verdict"] == "promote"]
    judged = [window for window in promoted if window["later"]]
    seen = [window["gain"]["difference"] for window in judged]
    shown = [window["later"]["difference"] for window in judged]
    kept = [window for window in windows if window["verdict"] != "promote" and window["later"]]
    return [
        {"label": "Promotions", "value": f"{len(promoted)} of {len(windows)}", "note": "trainings"},
        {"label": "False promotions", "value": f"{count(windows, FALSE)} of {len(judged)}",
         "note": "worse beyond doubt in the next window"},
        {"label": "Confirmed", "value": f"{count(windows, CONFIRMED)} of {len(judged)}",
         "note": "better beyond doubt there"},
        {"label": "Missed gains", "value": f"{count(windows, MISSED)} of {len(kept)}",
         "note": "kept, and better beyond doubt there"},
        {"label": "Mean gain of a promotion", "value": _mean(seen), "note": f"{_mean(shown)} in the next window"},
    ]  # fmt: skip


def row(window: Json) -> Json:
    """A line of the table."""
    read = reading(window)
    return {
        "day": str(window["as_of"])[:10],
        "version": window["version"],
        "verdict": window["verdict"],
        "tone": "good" if window["verdict"] == "promote" else "plain",
        "champion": window["champion_before"] or UNKNOWN,
        "gain": _said(window["gain"]),
        "later": _said(window["later"]),
        "reading": read,
        "reading_tone": TONES.get(read, "plain"),
        "n_drifted": f"{window['n_drifted']} of {window['n_compared']}" if window["n_compared"] else UNKNOWN,
        "drifted": window["drifted"],
        "reasons": window["reasons"],
    }


def _deciding(windows: Sequence[Json]) -> str:
    return f"{windows[0]['task']} {metric_name(windows[0]['metric'])}" if windows else ""


def _said(one: Json | None) -> str:
    return f"{signed(one['difference'])} [{signed(one['low'])}, {signed(one['high'])}]" if one else UNKNOWN


def _mean(values: Sequence[float]) -> str:
    return signed(sum(values) / len(values)) if values else UNKNOWN
