import re

from lrm.evaluation.charts import Whisker, calibration, scale, whiskers


def test_a_dot_stands_where_its_value_lies_on_the_scale():
    drawn = whiskers([Whisker(0.5, 0.25, 0.75, "challenger", "half")], (0.0, 1.0), width=124)
    assert re.search(r'circle cx="62.0"', drawn)
    assert re.search(r'class="whisker" x1="37.0" x2="87.0"', drawn)


def test_a_scale_holds_every_end_and_zero_where_asked():
    rows = [Whisker(0.5, 0.4, 0.6, "", ""), Whisker(0.7, 0.6, 0.9, "", "")]
    low, high = scale(rows)
    assert low < 0.4
    assert high > 0.9
    assert scale(rows, zero=True)[0] < 0
    assert scale([Whisker(0.0, 0.0, 0.0, "", "")]) == (-1.0, 1.0)


def test_hints_are_escaped():
    assert "<b>" not in whiskers([Whisker(0.5, 0.4, 0.6, "good", "<b>")], (0.0, 1.0))


def test_the_calibration_curve_has_a_dot_for_each_bin():
    assert calibration([[0.1, 0.2, 10], [0.5, 0.4, 20]]).count("<circle") == 2
