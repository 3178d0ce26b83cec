import json
import re

from tests.reporting import runs
from tests.reporting.test_page import outline


def rows_of(page):
    section = page[page.index('id="verdict-rules"') : page.index('id="metrics"')]
    return re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', section)


def test_every_rule_stands_with_what_was_asked_and_seen(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    rows = rows_of(page)
    assert len(rows) == len(runs.EVALUATION["rules"])
    assert ("Enough ranking users", "at least 50", "1,904") in rows
    assert "f00df00df00d" in page
    outline(page)


def test_the_rule_that_stopped_the_promotion_comes_first_and_says_where_it_led(run_dir, report):
    runs.kept(run_dir)
    _, page = report()
    assert rows_of(page)[0][0] == "Ranking AUC against the champion"
    assert "failed</span><small>keep</small>" in page


def test_the_rule_of_the_deciding_metric_comes_first_where_every_rule_holds(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    assert rows_of(page)[0][0] == "Ranking AUC against the champion"


def test_a_harder_finding_stands_before_a_softer_one(run_dir, report):
    runs.kept(run_dir)
    unclear = runs.EVALUATION["rules"][1] | {"outcome": "cannot tell", "verdict": "inconclusive", "seen": "12"}
    told = json.loads((run_dir / runs.EVALUATION_FILE).read_text())
    runs.write(run_dir, runs.EVALUATION_FILE, told | {"verdict": "inconclusive", "rules": [*told["rules"], unclear]})
    _, page = report()
    assert [name for name, *_ in rows_of(page)[:2]] == ["Enough ranking users", "Ranking AUC against the champion"]


def test_a_margin_is_drawn_where_there_is_one(run_dir, report):
    runs.promoted(run_dir)
    _, page = report()
    assert page.count('class="threshold"') == 1


def test_an_evaluation_without_rules_has_no_verdict_section(run_dir, report):
    runs.promoted(run_dir)
    runs.write(run_dir, runs.EVALUATION_FILE, {name: told for name, told in runs.EVALUATION.items() if name != "rules"})
    _, page = report()
    assert 'id="verdict-rules"' not in page


def test_an_inconclusive_run_says_so_and_that_the_champion_stays(run_dir, report):
    runs.kept(run_dir)
    runs.write(run_dir, runs.EVALUATION_FILE, runs.EVALUATION | {"verdict": "inconclusive"})
    summary, page = report()
    assert summary["verdict"] == "inconclusive"
    assert "Inconclusive: the champion stays" in page
