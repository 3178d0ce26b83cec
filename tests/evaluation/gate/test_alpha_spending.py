"""The stated level holds for all looks at the same test data together, and no look counts twice."""

import json

import numpy as np
import pytest

from benchmarks.seasons import simulate
from lrm.errors import DataError
from lrm.evaluation.gate.alpha_spending import Look, Looks, earlier, read, window

DAY = 24 * 3600 * 10**6
JANUARY = np.arange(31) * DAY  # a request a day, from 1970-01-01


def look(version, times, **changed):
    ends = {name: str(at) for name, at in window(times).items()}
    told = {"version": version, "weights_sha256": f"w{version}", "data": "shop", "parent_version": "1"} | ends
    return Look(**told | changed)


def left(known, times=JANUARY, **changed):
    return earlier(known, times, **{"data": "shop", "weights_sha256": "new", "has_champion": True} | changed)


def test_the_first_look_is_as_sure_as_stated():
    assert left([]) == Looks(0, 1.0)
    assert Looks().confidence(0.95) == 0.95


def test_looks_at_one_window_take_the_stated_level_together_however_many_there_are():
    levels = [(1 - left([look(f"{i}", JANUARY) for i in range(n)]).confidence(0.95)) / 2 for n in range(200)]
    assert levels[:4] == pytest.approx([0.025, 0.025 / 2, 0.025 / 6, 0.025 / 12])
    assert 0.0495 < sum(levels) < 0.05


@pytest.mark.parametrize("step", [1, 3, 7, 14, 20])
def test_looks_within_the_length_of_a_window_take_the_stated_level_at_most_wherever_they_are(step):
    known, levels, days = [], [], 14
    for at in range(40):
        times = (np.arange(days) + at * step) * DAY
        levels.append((1 - left(known, times).confidence(0.95)) / 2)
        known.append(look(f"{at}", times))
    within = max(1, days // step)
    assert max(sum(levels[at : at + within]) for at in range(1, 40 - within)) <= 0.05
    if step == 1:
        assert levels[-1] == pytest.approx(0.025 * (1 / 14 + (1 - 1 / 14) / (13 * 14)))


def test_the_same_weights_tried_again_are_no_other_look():
    assert left([look("2", JANUARY), look("3", JANUARY)], weights_sha256="w2").n_earlier == 1
    assert left([look("2", JANUARY), look("3", JANUARY, weights_sha256="w2")]).n_earlier == 1


@pytest.mark.parametrize(
    "other",
    [
        {"data": "another shop"},
        {"parent_version": ""},
        {"judged_from": "1970-02-01T00:00:00+00:00", "judged_until": "1970-02-20T00:00:00+00:00"},
        {"judged_from": "", "judged_until": ""},
    ],
)
def test_looks_at_other_data_and_of_another_kind_leave_all_of_the_level(other):
    assert left([look("2", JANUARY, **other)]) == Looks(0, 1.0)


def test_first_models_count_first_models():
    assert left([look("2", JANUARY, parent_version=""), look("3", JANUARY)], has_champion=False).n_earlier == 1


def test_requests_that_no_look_has_seen_are_new_on_either_side_of_a_gap():
    known = [look("2", JANUARY[5:10]), look("3", JANUARY[20:25])]
    assert left(known) == Looks(2, pytest.approx(21 / 31))


def test_the_window_is_told_in_instants():
    assert window(JANUARY) == {
        "judged_from": "1970-01-01T00:00:00+00:00",
        "judged_until": "1970-01-31T00:00:00+00:00",
    }
    assert window(JANUARY[:0]) == {"judged_from": None, "judged_until": None}


def test_looks_are_read_as_the_registry_wrote_them(tmp_path):
    (tmp_path / "looks.json").write_text(json.dumps([look("2", JANUARY)._asdict()]))
    assert read(tmp_path) == [look("2", JANUARY)]
    assert read(None) == []


@pytest.mark.parametrize("content", [None, "{", '[{"version": "1"}]', "[1]"])
def test_looks_that_cannot_be_read_are_an_error(content, tmp_path):
    if content is not None:
        (tmp_path / "looks.json").write_text(content)
    with pytest.raises(DataError, match="does not tell the earlier looks"):
        read(tmp_path)


def test_a_season_of_equal_models_on_one_window_promotes_as_seldom_as_stated():
    found = simulate(120, n_users=100, n_days=5, step=0, n_looks=30, better_by=0.0, seed=1)
    assert found["unspent"] > 0.15  # what each look alone would do
    assert found["spent"] <= 0.05


def test_daily_retraining_on_windows_that_move_on_finds_a_real_gain():
    found = simulate(40, n_users=200, n_days=14, step=1, n_looks=15, better_by=0.035, seed=2)
    assert found["first"] > 0.95
    assert found["last"] > 0.8
