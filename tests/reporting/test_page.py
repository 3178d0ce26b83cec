from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from lrm.reporting.summary import summary_text
from tests.reporting import runs
from tests.reporting.browser import Page, browser_page
from tests.reporting.sprawling import RIGHT_TO_LEFT, sprawling

HOSTILE = '<script>alert("x")</script><img src=http://outside.test/a.png onerror=alert(1)>'
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Outline(HTMLParser):
    """Tags in order, checking that each that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    assert not parsed.open
    return parsed


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("ending", ["promoted", "kept", "failed", "killed"])
def test_every_element_that_opens_closes_and_no_script_is_there(run_dir, report, ending):
    getattr(runs, ending)(run_dir)
    _, page = report()
    assert "script" not in outline(page).seen


def test_hostile_text_from_any_file_is_shown_and_never_run(run_dir, report):
    runs.promoted(run_dir)
    evil = json.loads(json.dumps(runs.EVALUATION))
    evil["reasons"] = [HOSTILE]
    evil["recommendations"][0]["recommended"][0]["title"] = HOSTILE
    evil["slices"][0]["slice"] = HOSTILE
    evil["models"][HOSTILE] = evil["models"]["trees"]
    runs.write(run_dir, runs.EVALUATION_FILE, evil)
    runs.write(run_dir, "run.json", runs.RUN | {"command": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    runs.write(run_dir, "steps/train_lrm/curves.json", {f"{HOSTILE}/{HOSTILE}": [[0, 1.0], [1, 2.0]]})
    runs.write(run_dir, "steps/retrieve_features/signals.json", [runs.SIGNALS[0] | {"description": HOSTILE}])
    summary, page = report()
    seen = outline(page).seen
    assert "script" not in seen
    assert "img" not in seen
    assert "&lt;script&gt;alert(" in page
    assert summary["reasons"] == [HOSTILE]


def test_the_best_value_of_each_metric_is_marked_also_where_lower_is_better(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    best = re.findall(r'<td class="n best">([\d.]+)<', page)
    challenger_ranks, trees_rank, challenger_retrieves = best[:3], best[3:4], best[4:]
    assert challenger_ranks == ["0.8131", "0.3842", "0.4652"]
    assert trees_rank == ["0.0057"]
    assert challenger_retrieves == ["0.1184", "0.1312", "0.4471", "0.2214"]


def test_each_metric_says_of_whom_it_is_and_a_missing_row_why(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    ranking, retrieval = re.findall(r"<thead><tr><th scope=\"col\">Model</th>(.*?)</tr></thead>", page)
    assert ranking.count("<small>1,904 users, 3,808 requests</small>") == 4
    assert retrieval.count("<small>1,904 users, 3,808 requests</small>") == 4
    assert "Own history, sorted by the trees: not there, as the boosted trees gave no scores." in page


def test_a_fallen_log_loss_reads_as_better_and_a_risen_calibration_error_as_worse(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    table = page[page.index("Challenger against each") :]
    readings = re.findall(r"<th scope=\"row\">(.*?)</th><td>(.*?)</td>.*?<span class=\"tag t-\w+\">(.*?)</span>", table)
    assert ("Ranking Log loss", "Champion", "better") in readings
    assert ("Ranking ECE", "Boosted trees", "worse") in readings
    assert ("Retrieval NDCG @10", "Champion", "no clear difference") in readings


def test_every_signal_is_listed_with_its_nulls_and_its_drift(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    table = page[page.index('<section id="signals"') : page.index('<section id="lineage"')]
    rows = re.findall(r"<tr><th scope=\"row\"><code>(\w+)</code>(.*?)</tr>", table, flags=re.S)
    assert [name for name, _ in rows] == [signal["name"] for signal in runs.SIGNALS]
    cells = dict(rows)
    assert "67.1 %" in cells["income"]
    assert "drifted" in cells["store_id"]
    assert "after the action" in cells["quantity"]


def test_sections_that_the_run_did_not_reach_are_named_not_drawn_empty(run_dir, report):
    runs.failed(run_dir)
    _, page = report(state="FAILED")
    assert '<section id="metrics"' not in page
    assert "nothing to show for: pretraining, training, staging, verdict, metrics" in page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (420, "dark")])
def test_a_browser_shows_the_page_in_silence_alone_and_within_its_width(run_dir, report, browser: Page, width, scheme):
    runs.promoted(run_dir)
    report()
    browser.open(run_dir / "report.html", width=width, scheme=scheme)
    assert browser.complaints() == []
    assert browser.requests() == [(run_dir / "report.html").resolve().as_uri()]
    assert browser.evaluate("document.querySelector('h1').innerText") == "Version 7 is the new champion"
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    shown = "[...document.querySelectorAll('svg.workflow')].filter(svg => svg.getBoundingClientRect().width > 0)"
    assert browser.evaluate(f"{shown}.map(svg => svg.classList[1])") == (["wide"] if width == 1280 else ["narrow"])
    assert browser.evaluate("[...document.querySelectorAll('svg.chart')].every(svg => svg.clientHeight > 60)")


SPILLED = """[...document.querySelectorAll("nav *, main *")]
    .filter(one => !one.closest(".scroll, svg, details:not([open])"))
    .filter(one => one.getBoundingClientRect().right > innerWidth + 1 || one.getBoundingClientRect().left < -1)
    .filter(one => !one.matches(".skip, .hidden"))
    .map(one => one.outerHTML.slice(0, 90))"""
CUT_OFF = """[...document.querySelectorAll("nav, nav *, .card, .panel, .banner, .tiles > div, .check, h3, li, dd")]
    .filter(one => !one.closest(".scroll, svg, details:not([open])") && !one.matches(".hidden"))
    .filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display != "inline")
    .map(one => one.outerHTML.slice(0, 90))"""


@pytest.mark.parametrize("width", [390, 768, 1400])
@pytest.mark.parametrize("ending", [runs.promoted, runs.failed, sprawling])
def test_nothing_is_cut_off_or_spills_at_any_width_whatever_the_data_hold(
    run_dir, report, browser: Page, ending, width
):
    ending(run_dir)
    report(state="SUCCEEDED" if ending is runs.promoted else "FAILED")
    browser.open(run_dir / "report.html", width=width)
    assert browser.evaluate(SPILLED) == []
    assert browser.evaluate(CUT_OFF) == []
    tallest = "Math.max(...[...document.querySelectorAll('tr, .check')].map(one => one.clientHeight))"
    assert browser.evaluate(tallest) < 900, "a value of the data fills more than a screen"


def test_text_from_right_to_left_is_laid_out_in_its_own_direction(run_dir, report, browser: Page):
    sprawling(run_dir)
    report(state="FAILED")
    browser.open(run_dir / "report.html")
    titles = f"[...document.querySelectorAll('.example li span')].filter(one => one.innerText == '{RIGHT_TO_LEFT}')"
    assert browser.evaluate(f"{titles}.map(one => getComputedStyle(one).direction)") == ["rtl", "rtl"]


def test_a_promotion_is_followed_by_how_to_go_back(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    told = "Version 6 is kept. To put it back in service: python pipeline.py rollback --name complete-journey"
    assert told in page[page.index("What can be done") : page.index('<section id="workflow"')]


def test_a_keep_is_followed_by_what_a_person_can_do_next_on_the_page_in_the_summary_and_in_the_terminal(
    run_dir, report
):
    runs.kept(run_dir)
    record = json.loads((run_dir / "steps/register_model/record.json").read_text())
    told = "The champion stays. To put version 7 in service all the same: python pipeline.py approve 7"
    runs.write(run_dir, "steps/register_model/record.json", record | {"metrics": record["metrics"] | {"next": told}})
    summary, page = report()
    assert told in page[page.index("What can be done") : page.index('<section id="workflow"')]
    assert summary["next"] == told
    assert told in summary_text(summary).splitlines()


def test_a_failed_validation_leads_to_the_failed_checks(run_dir, report):
    runs.failed(run_dir)
    _, page = report(state="FAILED")
    assert page.index('<a href="#validation">The failed checks') < page.index('<section id="workflow"')
    assert "event_id 11, quantity inf" in page


def test_dark_and_light_differ_in_ink_and_paper(run_dir, report, browser: Page):
    runs.promoted(run_dir)
    report()
    seen = []
    for scheme in ("light", "dark"):
        browser.open(run_dir / "report.html", scheme=scheme)
        seen.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert seen == ["rgb(245, 246, 248)", "rgb(16, 19, 26)"]


def test_the_browser_check_would_notice_an_outside_request_and_an_error(tmp_path, browser: Page):
    page = tmp_path / "talkative.html"
    page.write_text('<img src="http://outside.test/pixel.png"><script>console.error("no")</script>')
    browser.open(page)
    assert "http://outside.test/pixel.png" in browser.requests()
    assert any("no" in complaint for complaint in browser.complaints())


def test_the_feature_report_is_shown_in_its_order_with_its_intervals_and_names_what_could_go(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    section = page[page.index('<section id="feature-report"') : page.index('<section id="signals"')]
    places = [section.index(f"<code>{row['signal']}</code></th>") for row in runs.FEATURES["signals"]]
    assert places == sorted(places)
    how = "<small>tags=retired(...) in views.py drops one; the next run compares</small>"
    assert f"<dt>Could be dropped</dt><dd><code>unit_price</code>, <code>age</code>{how}</dd>" in section
    assert "<dt>Too little data to tell</dt><dd><code>department</code></dd>" in section
    assert "all of these shuffled at once: Ranking AUC +0.0003 (\N{MINUS SIGN}0.0017 to +0.0023)" in section
    assert "+0.0081<small>+0.0051 to +0.0111</small>" in section
    assert "candidate 91%" in section
    assert section.count('class="inline"') == len(runs.FEATURES["signals"])


def test_a_leakage_warning_stands_on_top_of_the_page_and_in_the_summary(run_dir, report):
    runs.promoted(run_dir)
    summary, page = report()
    assert [one["what"] for one in summary["warnings"] if one["step"] == "evaluate_model"] == runs.FEATURES["warnings"]
    assert page.index("was_bought&#39; may leak the outcome") < page.index('<section id="workflow"')
    assert "  - Signal 'was_bought' may leak the outcome" in summary_text(summary)


def test_a_run_without_a_ledger_has_no_section_and_one_without_anything_odd_no_warnings(run_dir, report):
    runs.promoted(run_dir)
    (run_dir / runs.FEATURES_FILE).unlink()
    (run_dir / "steps/validate_data/validation.json").unlink()
    summary, page = report()
    assert summary["warnings"] == []
    assert 'id="feature-report"' not in page
    assert 'aria-label="Warnings"' not in page
    assert "Warnings" not in summary_text(summary)
