"""Harm on a slice is found, and found falsely as rarely as stated, however many draws the policy asks for."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gate import N_SLICES, judge
from lrm.evaluation.estimates import CHALLENGER, CHAMPION, POPULAR
from lrm.evaluation.metrics.bootstrap import draw_users
from lrm.evaluation.policy import DecisionPolicy, Policy, StagingPolicy

N_USERS = 600


def decisions(n_resamples, confidence, harm, n_pairs, seed=0):
    """Of pairs whose challenger gains .05 everywhere but on slice 0, where it loses `harm`."""
    asked = DecisionPolicy(n_resamples=n_resamples, confidence=confidence)
    policy = replace(Policy(), decision=asked, staging=StagingPolicy(required=False))
    rng = np.random.default_rng(seed)
    draws = draw_users(N_USERS, n_resamples, rng)
    for _ in range(n_pairs):
        base = rng.beta(2, 4, N_USERS)
        moved = np.where(np.arange(N_USERS) % N_SLICES == 0, -harm, 0.05)
        own = base + moved + 0.05 * rng.standard_t(5, N_USERS)
        yield judge({CHAMPION: base, CHALLENGER: own, POPULAR: np.zeros(N_USERS)}, draws, policy)


@pytest.mark.parametrize(("n_resamples", "confidence"), [(100, 0.95), (100, 0.9999), (1000, 0.999), (10_000, 0.9999)])
def test_a_slice_that_fell_far_is_found_with_few_draws_and_at_a_strict_confidence(n_resamples, confidence):
    for decision in decisions(n_resamples, confidence, harm=0.1, n_pairs=3):
        assert decision.verdict == "keep"
        assert [one.rule for one in decision.rule_results if one.outcome == "failed"] == [
            "Slice slice 0: Retrieval NDCG@10"
        ]


@pytest.mark.parametrize("n_resamples", [100, 1000])
def test_a_slice_that_fell_by_the_margin_alone_is_seldom_called_harmed(n_resamples):
    found = list(decisions(n_resamples, 0.95, harm=Policy().slices.margin, n_pairs=200, seed=1))
    n_false = sum(any(one.rule.startswith("Slice ") for one in decision.rule_results) for decision in found)
    assert n_false <= 10  # 5 % over all six slices; only one of them lies at the margin
