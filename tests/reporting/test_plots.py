from __future__ import annotations

import re

import pytest

from lrm.reporting import plots, svg, wording, workflow
from lrm.reporting.plots import Dot
from lrm.reporting.summary import summary_text
from tests.reporting import runs


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0.03, 0.11, [0.04, 0.06, 0.08, 0.1]), (5, 5, [5])],
)
def test_ticks_are_round_numbers_inside_the_range(low, high, expected):
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_a_scale_maps_ends_to_ends_and_a_lone_value_to_the_middle():
    assert [svg.linear(10, 20, 0, 100)(value) for value in (10, 15, 20)] == [0, 50, 100]
    assert svg.linear(3, 3, 0, 100)(3) == 50


def test_markup_in_attributes_and_text_is_escaped():
    assert svg.tag("g", svg.text("<b>", 0, 0), aria_label='"<') == (
        '<g aria-label="&quot;&lt;"><text x="0" y="0">&lt;b&gt;</text></g>'
    )


def test_the_epoch_whose_weights_were_kept_is_ringed():
    series = {"train": [[50, 0.9]], "validation": [[100, 0.5], [200, 0.4], [300, 0.6]]}
    drawn = plots.curve("Ranking loss", series, kept_at=1)
    assert "best epoch 0.4 at step 200" in drawn
    assert drawn.count("best-ring") == 1
    assert "best-ring" not in plots.curve("Ranking loss", series)


def test_a_loss_is_best_at_its_lowest_and_an_auc_at_its_highest():
    assert wording.best_of("log_loss", [0.5, 0.4, 0.6]) == 1
    assert wording.best_of("auc", [0.5, 0.4, 0.6]) == 2


def test_panels_beside_each_other_share_one_scale():
    left, right = Dot("a", "challenger", 0.2, None, None), Dot("b", "challenger", 0.8, None, None)
    ticks = [re.findall(r">(0\.\d+)</text>", plots.slices("AUC", [dot], beside=[left, right])) for dot in (left, right)]
    assert ticks[0] == ticks[1] == ["0.2", "0.4", "0.6", "0.8"]


def test_a_curve_without_a_finite_point_is_drawn_empty():
    drawn = plots.curve("loss", {"train": [[0, float("nan")]]})
    assert "polyline" not in drawn
    assert "nan" not in drawn


def test_a_long_curve_is_drawn_by_the_means_of_equal_stretches():
    drawn = plots.curve("loss", {"train": [[step, 1.0] for step in range(10_000)]})
    assert drawn.count(",") < 2 * plots.MAX_POINTS


def test_an_unknown_interval_leaves_the_dot_without_a_whisker():
    assert "whisker" not in plots.whiskers("AUC", [Dot("a", "challenger", 0.8, None, None)])
    assert "whisker" in plots.whiskers("AUC", [Dot("a", "challenger", 0.8, 0.7, 0.9)])


def test_models_differ_in_shape_as_well_as_in_colour():
    drawings = [svg.swatch(model) for model in wording.MODELS]
    assert len({re.sub(r"m-\w+", "", drawing) for drawing in drawings}) == len(wording.MODELS)
    assert len(set(drawings)) == len(wording.MODELS)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (9.97, "10 s"), (59.6, "60 s"), (185, "3 min 05 s"), (7260, "2 h 01 min")],
)
def test_durations_read_as_a_person_says_them(seconds, expected):
    assert wording.seconds(seconds) == expected


def test_metric_names_are_spelled_out():
    assert [wording.metric_name(name) for name in ("ndcg@10", "hit_rate@10", "ndcg_masked@10", "log_loss")] == [
        "NDCG @10",
        "Hit rate @10",
        "NDCG masked @10",
        "Log loss",
    ]


def test_a_skipped_promotion_is_passed_by_on_the_graph(run_dir, report):
    runs.kept(run_dir)
    kept, _ = report()
    runs.promoted(run_dir)
    promoted, _ = report()
    assert workflow.wide(kept["steps"]).count('class="edge"') == 10
    assert workflow.wide(kept["steps"]).count('class="edge off"') == 2
    assert workflow.wide(promoted["steps"]).count('class="edge"') == 11
    for step in runs.TIMES:
        assert step in workflow.narrow(promoted["steps"])


def test_the_closing_table_says_steps_metrics_verdict_and_where_the_report_is(run_dir, report):
    runs.promoted(run_dir)
    summary, _ = report()
    lines = summary_text(summary, run_dir=run_dir).splitlines()
    assert lines[0] == "Run 2024-11-22T0714-complete-journey: succeeded"
    assert "train_lrm               ok      4 min 32 s  8 min 50 s     1,890 MB" in lines
    assert "Boosted trees  0.8119 [0.8088, 0.8150]  0.3851 [0.3823, 0.3879]" in "\n".join(lines)
    assert "Verdict: promote" in lines
    assert "Model:   complete-journey version 7 (aliases: challenger, champion)" in lines
    assert lines[-1] == f"Report:  {run_dir / 'report.html'}"


def test_many_reasons_are_cut_short_on_the_terminal_and_whole_in_the_report(run_dir, report):
    runs.promoted(run_dir)
    reasons = [f"Reason number {i}." for i in range(9)]
    runs.write(run_dir, runs.EVALUATION_FILE, runs.EVALUATION | {"reasons": reasons})
    summary, page = report()
    assert "  - Reason number 3.\n  - and 5 more, in the report\n" in summary_text(summary)
    assert all(f"<li>{reason}</li>" in page for reason in reasons)


def test_the_closing_table_of_a_failure_starts_with_it(run_dir, report):
    runs.failed(run_dir)
    summary, _ = report(state="FAILED")
    lines = summary_text(summary).splitlines()
    assert lines[2] == "validate_data stopped. ValidationFailed"
    assert lines[-1] == "Report:  runs/2024-11-22T0714-complete-journey/report.html"
