import math
import re

import numpy as np
import polars as pl
import pytest

from lrm.evaluation.metrics.bootstrap import Statistic
from lrm.evaluation.policy import LeakagePolicy, Policy
from lrm.evaluation.signals.costs import value_bytes
from lrm.evaluation.signals.feature_report import clear_up_to, is_clear, judge, recovered, share_of_lift
from lrm.evaluation.signals.target_leakage import suspicion
from lrm.schema import Signal
from tests.evaluation.planted import COPY, HONEST, LEAKY, NOISE, report_of, train, write_planted
from tests.worlds import SIGNALS


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The feature report of a world where labels follow `affinity`, next items follow the last one."""
    folder = tmp_path_factory.mktemp("honest")
    examples = write_planted(folder / "examples", HONEST)
    return report_of(examples, train(examples, folder), importance_tokens=40_000)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """The report of the same world with a column that copies the label."""
    folder = tmp_path_factory.mktemp("leaky")
    examples = write_planted(folder / "examples", LEAKY)
    return report_of(examples, train(examples, folder), importance_tokens=40_000)


def row_of(report, name):
    return next(row for row in report["signals"] if row["signal"] == name)


def test_the_signal_that_the_labels_follow_ranks_first_and_is_kept(honest):
    first = honest["signals"][0]
    assert (first["signal"], first["verdict"]) == ("affinity", "keep")
    auc = first["importance"]["ranking"]["auc"]
    assert 0.3 < auc["low"] < auc["value"] < auc["high"]
    assert auc["n_users"] == honest["n_users"] == 150
    assert honest["warnings"] == []


def test_a_column_of_noise_ranks_last_and_could_be_dropped(honest, leaky):
    for report in (honest, leaky):
        last = report["signals"][-1]
        assert (last["signal"], last["verdict"], last["value"]) == ("noise", "could be dropped", 0.0)
        assert last["importance"]["ranking"]["auc"]["low"] <= 0 <= last["importance"]["ranking"]["auc"]["high"]
        assert "noise" in report["droppable"]
        assert "noise" in report["together"]["signals"]


def test_a_copy_of_the_label_ranks_first_and_raises_a_warning(leaky):
    first = leaky["signals"][0]
    assert (first["signal"], first["verdict"]) == (COPY.name, "suspicious")
    assert first["alone_auc"] > 0.95
    assert len(leaky["warnings"]) == 1
    assert leaky["warnings"][0].startswith("Signal 'outcome_copy' may leak the outcome: alone it orders outcomes")


def test_a_signal_is_judged_by_retrieval_too_unless_candidates_alone_read_it(honest):
    colour = row_of(honest, "colour")["importance"]
    assert set(colour) == {"ranking", "retrieval"}
    assert colour["retrieval"]["ndcg@10"]["value"] > 0
    assert set(row_of(honest, "affinity")["importance"]) == {"ranking"}


def test_costs_are_those_of_a_mean_request(honest):
    assert sum(row["cost_share"] for row in honest["signals"]) == pytest.approx(1, abs=1e-4)
    noise = row_of(honest, "noise")
    assert noise["prompt_tokens"] == pytest.approx(6 / 3)  # six candidates of one token, which three signals share
    assert noise["online_bytes"] == pytest.approx(6 * 4)
    assert noise["null_rate"] == 0
    assert row_of(honest, "age")["prompt_tokens"] == pytest.approx(2 / 2)  # two query tokens: age and the gap in hours
    assert 0.02 < row_of(honest, "age")["null_rate"] < 0.2


def test_the_size_of_a_value_is_that_of_numbers_text_and_members():
    def bytes_of(kind, values, **extra):
        signal = Signal(name="s", kind=kind, makers=("candidate",), entity="item", view="v", **extra)
        return value_bytes(pl.Series(values), signal)

    assert bytes_of("dense", [1.0, None]) == 2
    assert bytes_of("embedding", [[1.0, 2.0], [3.0, 4.0]], dim=2) == 8
    assert bytes_of("sparse", ["four", None, "é", ""]) == (4 + 2) / 4
    assert bytes_of("bag", [["ab", "c"], [], None]) == 1
    assert value_bytes(pl.Series([], dtype=pl.Float32), NOISE) == 0


def worth_of(auc=0.0, width=0.001, ndcg=None):
    def statistic(value):
        return Statistic(value, value + width * np.linspace(-1, 1, 1001), 60)

    ranking = {"ranking": {"auc": statistic(auc), "log_loss": statistic(0.0 * auc)}}
    return ranking | ({"retrieval": {"ndcg@10": statistic(ndcg)}} if ndcg is not None else {})


BASE = worth_of(auc=0.8, ndcg=0.2)


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        (worth_of(auc=0.002), "keep", r"worse without it: ranking auc \+0.0020 \(\+0.001"),
        (worth_of(auc=0.0, ndcg=0.05), "keep", "worse without it: retrieval ndcg@10"),
        (
            worth_of(auc=0.0005),
            "could be dropped",
            "no worse without it by more than the policy's margins: ranking auc",
        ),
        (worth_of(auc=-0.01), "could be dropped", "no worse without it"),
        (worth_of(auc=0.00005, width=0.00001), "could be dropped", "no worse"),
        (worth_of(auc=0.004, width=0.02), "unclear", "too few test requests to tell"),
        (worth_of(auc=math.nan, width=math.nan), "keep", "could not be measured"),
    ],
)
def test_a_verdict_follows_from_the_intervals(found, verdict, reason):
    given = judge(NOISE, found, base=BASE, alone=0.6, k=10, policy=Policy(), chance=clear_up_to([], 0.95))
    assert given[0] == verdict
    assert re.search(reason, given[1])


def test_the_more_signals_are_judged_the_clearer_a_worth_must_be():
    importance, none = (
        [worth_of(auc=auc)["ranking"]["auc"]] for auc in (0.0018, 0.0)
    )  # about three deviations, and none
    assert is_clear(*importance, clear_up_to([importance] + [none] * 9, 0.95))
    assert not is_clear(*importance, clear_up_to([importance] + [none] * 49, 0.95))


def test_the_more_signals_are_worth_something_the_less_clear_each_must_be():
    """Three deviations are found by chance once in 740: of a hundred worths that is little of thirty, much of one."""
    importance, none = ([worth_of(auc=auc)["ranking"]["auc"]] for auc in (0.0018, 0.0))
    chances = [clear_up_to([importance] * n + [none] * (100 - n), 0.95) for n in (0, 1, 30, 100)]
    assert chances == pytest.approx([0.00025, 0.00025, 0.0075, 0.025])
    assert [is_clear(*importance, chance) for chance in chances] == [False, False, True, True]


@pytest.mark.parametrize("alike", [0.0, 0.8])
def test_of_the_signals_that_are_clear_few_are_worthless(alike):
    """Eighty that are worth nothing and twenty that are, each by three metrics that go more or less together."""
    rng, truth = np.random.default_rng(0), np.repeat([0.0, 3.5], [80, 20])[:, np.newaxis]
    worthless, found, noise = [], [], np.array([-1.0, 1.0])
    for _ in range(1000):
        shared, own = rng.standard_normal((100, 1)), rng.standard_normal((100, 3))
        values = truth + np.sqrt(alike) * shared + np.sqrt(1 - alike) * own
        importances = [[Statistic(value, value + noise, 60) for value in row] for row in values.tolist()]
        chance = clear_up_to(importances, 0.95)
        clear = np.array([any(is_clear(importance, chance / 3) for importance in row) for row in importances])
        worthless.append(clear[:80].sum() / max(1, clear.sum()))
        found.append(clear.sum())
    assert np.mean(worthless) < 0.025
    assert np.mean(found) > 14


def test_a_worth_that_some_draws_lack_is_as_clear_as_the_others_make_it():
    draws = np.append(0.02 + 0.03 * np.linspace(-1, 1, 101), [math.nan] * 5)
    assert not is_clear(Statistic(0.02, draws, 5), 0.025)
    assert is_clear(Statistic(0.2, draws, 5), 0.025)
    assert not is_clear(Statistic(0.2, draws * math.nan, 5), 0.025)
    assert not is_clear(Statistic(math.nan, draws, 5), 0.025)


def test_a_signal_of_the_request_that_carries_the_retrieval_is_suspicious():
    query = next(signal for signal in SIGNALS if signal.name == "country")
    assert "60% of the retrieval NDCG rests on it" in suspicion(
        query, alone=math.nan, carried=0.6, bars=LeakagePolicy()
    )
    assert suspicion(query, alone=0.94, carried=0.4, bars=LeakagePolicy()) == ""
    history = next(signal for signal in SIGNALS if signal.name == "title")
    assert suspicion(history, alone=math.nan, carried=0.9, bars=LeakagePolicy()) == ""


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([(0.4, 0.8)], {"age": 0.5}),
        ([(0.2, 0.8), (0.6, 0.8)], {"age": 0.75}),
        ([(-0.5, -0.02)], {}),
        ([(0.004, 0.0001)], {}),
        ([(-0.5, -0.02), (-0.2, 0.8)], {"age": -0.25}),
        ([(None, 0.8)], {}),
        ([(0.4, None)], {}),
    ],
)
def test_the_share_that_tokens_keep_is_of_what_can_be_read_from_the_signal_itself(kept, expected):
    makers = {f"maker {at}": dict(zip(("prompt", "ceiling"), pair, strict=True)) for at, pair in enumerate(kept)}
    assert recovered({"signals": [{"signal": "age", "linear_probes": makers}]}) == pytest.approx(expected)


def test_the_value_is_the_mean_share_of_the_lift():
    assert share_of_lift(worth_of(auc=0.03, ndcg=0.1), BASE, k=10) == pytest.approx((0.03 / 0.3 + 0.1 / 0.2) / 2)
    assert share_of_lift(worth_of(auc=0.03), BASE, k=10) == pytest.approx(0.05)
    assert share_of_lift(worth_of(auc=-0.03, ndcg=-0.1), BASE, k=10) == 0
