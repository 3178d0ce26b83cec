from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lrm.reporting.run import report_run
from tests.reporting import runs
from tests.reporting.browser import browser_page
from tests.reporting.test_page import CUT_OFF, SPILLED, outline

PAGE = "trends/complete-journey.html"
DAYS = ("2024-11-22", "2024-11-23", "2024-11-24", "2024-11-25")
MOVES = [
    {"time": "2024-11-01T06:00:00+00:00", "action": "promote", "version": "6", "previous": "", "actor": "root@trainer",
     "reason": "better", "run_id": "first"},
    {"time": "2024-11-22T07:30:00+00:00", "action": "promote", "version": "7", "previous": "6", "actor": "root@trainer",
     "reason": "better still", "run_id": "2024-11-22"},
    {"time": "2024-11-23T09:14:00+00:00", "action": "rollback", "version": "6", "previous": "7", "actor": "ann@desk",
     "reason": "returns rose", "run_id": ""},
]  # fmt: skip


def ended(root: Path, day: str, ending, *, moves: int) -> Path:
    """A run of that day, reported; it found the first so many moves in the ledger."""
    run_dir = root / day
    run_dir.mkdir(parents=True)
    ending(run_dir)
    runs.write(run_dir, "run.json", runs.RUN | {"run_id": day, "started": f"{day}T07:14:05+00:00"})
    if ending is not runs.failed:
        runs.write(run_dir, "steps/find_champion/moves.json", MOVES[:moves])
    report_run(run_dir, state="FAILED" if ending is runs.failed else "SUCCEEDED")
    return run_dir


@pytest.fixture
def season(run_dir: Path) -> Path:
    """Four days: promoted, kept, a failed validation, and kept after a person's rollback."""
    root = run_dir.parent
    shutil.rmtree(run_dir)
    endings = (runs.promoted, runs.kept, runs.failed, runs.kept)
    for day, ending, n_moves in zip(DAYS, endings, (1, 2, 0, 3), strict=True):
        ended(root, day, ending, moves=n_moves)
    return root


def rows_of(page: str) -> list[str]:
    return page[page.index('<section id="runs"') :].split('<tr class="detailed">')[1:]


def test_every_run_of_a_model_stands_on_one_page_newest_first_with_its_outcome(season):
    page = (season / PAGE).read_text()
    outline(page)
    rows = rows_of(page)
    assert [row.split("report.html")[0].split("../")[1].rstrip("/") for row in rows] == list(reversed(DAYS))
    for row, outcome in zip(rows, ("keep", "failed", "keep", "promote"), strict=True):
        assert f">{outcome}</span>" in row
    assert "validate_data: events.quantity: 3 of 1,469,307 rows are infinite" in rows[1]
    assert "0.8131" in rows[3]
    assert "+0.0081" in rows[3]
    assert "1 of 4" in rows[3]


def test_the_page_knows_a_move_that_a_person_made_between_two_runs(season):
    page = (season / PAGE).read_text()
    moves = page[page.index('<section id="moves"') :]
    assert moves.index("rollback") < moves.index("better still") < moves.index(">better<")
    assert "ann@desk" in moves
    assert "2024-11-23 09:14 version 6 (rollback)" in page


def test_a_run_that_was_pruned_stays_on_the_page_without_a_link(season):
    shutil.rmtree(season / DAYS[0])
    ended(season, "2024-11-26", runs.kept, moves=3)
    oldest = rows_of((season / PAGE).read_text())[-1]
    assert "report pruned" in oldest
    assert "../2024-11-22/report.html" not in oldest


def test_a_run_that_is_reported_again_is_on_the_page_once(season):
    report_run(season / DAYS[3])
    assert len(rows_of((season / PAGE).read_text())) == len(DAYS)


def test_facts_torn_by_a_machine_that_went_down_cost_that_row_alone(season):
    (season / "trends/complete-journey" / f"{DAYS[1]}.json").write_text('{"run_id": "2024-1')
    report_run(season / DAYS[3])
    assert len(rows_of((season / PAGE).read_text())) == len(DAYS) - 1


def test_two_models_have_a_page_each(season):
    run_dir = season / "other"
    run_dir.mkdir()
    runs.promoted(run_dir)
    named = runs.RUN | {"run_id": "other", "parameters": {"model_name": "bookshop"}}
    runs.write(run_dir, "run.json", named)
    report_run(run_dir)
    assert len(rows_of((season / "trends/bookshop.html").read_text())) == 1
    assert len(rows_of((season / PAGE).read_text())) == len(DAYS)


def test_a_report_leads_to_the_page_of_all_runs_and_back(season):
    report = (season / DAYS[0] / "report.html").read_text()
    target = report.split('">All runs</a>')[0].rpartition('href="')[2]
    assert (season / DAYS[0] / target).resolve() == (season / PAGE).resolve()
    assert (season / "trends" / f"../{DAYS[0]}/report.html").is_file()


def test_a_number_that_is_not_finite_is_left_out_and_never_drawn(season):
    told = json.loads(json.dumps(runs.EVALUATION))
    told["models"]["challenger"]["ranking"]["auc"] = {"value": float("nan"), "low": None, "high": None, "n_users": 0}
    run_dir = season / "2024-11-27"
    run_dir.mkdir()
    runs.promoted(run_dir)
    runs.write(run_dir, "run.json", runs.RUN | {"run_id": run_dir.name, "started": "2024-11-27T07:00:00+00:00"})
    runs.write(run_dir, runs.EVALUATION_FILE, told)
    report_run(run_dir)
    page = (season / PAGE).read_text()
    assert "nan" not in page[page.index("<main") :].lower()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_a_browser_shows_the_page_in_silence_and_within_its_width(season, tmp_path, width, scheme):
    with browser_page(tmp_path / "profile") as page:
        page.open(season / PAGE, width=width, scheme=scheme)
        assert page.complaints() == []
        assert page.requests() == [(season / PAGE).resolve().as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(SPILLED) == []
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate("[...document.querySelectorAll('svg.chart')].every(svg => svg.clientHeight > 60)")
