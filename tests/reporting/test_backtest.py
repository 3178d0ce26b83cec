"""The page of a backtest: what each decision was worth, and that a browser shows it."""

import pytest

from lrm.reporting import backtest
from tests.reporting.browser import browser_page
from tests.reporting.test_page import HOSTILE, outline


def gain(difference, half=0.004):
    return {"difference": difference, "low": difference - half, "high": difference + half, "n_users": 150}


def window(day, verdict, *, seen=None, shown=None, before="1", version="2", drifted=()):
    return {
        "as_of": f"2017-10-{day:02d}T05:00:00+00:00", "run_id": f"r{day}", "verdict": verdict, "reasons": ["Because."],
        "version": version, "champion_before": before, "task": "ranking", "metric": "auc", "value": {"value": 0.8},
        "gain": None if seen is None else gain(seen), "later": None if shown is None else gain(shown),
        "n_drifted": len(drifted), "n_compared": 60 if before else 0, "drifted": list(drifted),
    }  # fmt: skip


YEAR = {
    "settings": {"data": "shop", "every": "1 week", "windows": 6, "preset": "tiny", "seed": 0},
    "windows": [
        window(1, "promote", before="", version="1"),
        window(8, "promote", seen=0.010, shown=0.008, version="2", drifted=("price",)),
        window(15, "promote", seen=0.006, shown=-0.007, before="2", version="3", drifted=("price", "hour")),
        window(22, "keep", seen=0.001, shown=0.009, before="3", version="4"),
        window(29, "keep", seen=-0.002, before="3", version="5"),
    ],
}


@pytest.mark.parametrize(
    ("verdict", "shown", "reading"),
    [
        ("promote", 0.008, backtest.CONFIRMED),
        ("promote", -0.008, backtest.FALSE),
        ("promote", 0.001, backtest.OPEN),
        ("keep", 0.008, backtest.MISSED),
        ("keep", -0.008, backtest.RIGHT),
        ("reject", 0.001, backtest.OPEN),
        ("promote", None, ""),
    ],
)
def test_a_decision_is_read_against_the_window_that_came_next(verdict, shown, reading):
    assert backtest.reading(window(1, verdict, seen=0.0, shown=shown)) == reading


def test_the_outcome_is_a_sentence_and_the_numbers_stand_in_tiles():
    assert backtest.in_words(YEAR) == "3 of 5 trainings were promoted; false in the window that came next: 1 of 2"
    values = {tile["label"]: tile["value"] for tile in backtest.tiles(YEAR["windows"])}
    assert values["False promotions"] == values["Confirmed"] == "1 of 2"
    assert values["Missed gains"] == "1 of 1"
    assert values["Mean gain of a promotion"] == "+0.0080"


def test_text_from_the_runs_is_shown_and_never_run():
    windows = [YEAR["windows"][0] | {"reasons": [HOSTILE], "drifted": [HOSTILE]}, *YEAR["windows"][1:]]
    page = backtest.render(YEAR | {"windows": windows})
    assert "script" not in outline(page).seen
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("n_windows", [0, 1, 5])
def test_a_page_is_whole_at_every_stage(n_windows):
    page = backtest.render(YEAR | {"windows": YEAR["windows"][:n_windows]})
    outline(page)
    assert f"{6 - n_windows} of 6 windows are still to come." in page


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_without_complaint_and_it_fits(width, tmp_path):
    (tmp_path / "backtest.html").write_text(backtest.render(YEAR))
    with browser_page(tmp_path / "profile") as page:
        page.open(tmp_path / "backtest.html", width=width)
        assert page.complaints() == []
        assert page.requests() == [(tmp_path / "backtest.html").resolve().as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.evaluate(
            "[...document.querySelectorAll('svg.chart')].every(svg => svg.getBoundingClientRect().width > 200)"
        )
