"""The gate on many simulated pairs of models whose true difference is known (`python -m benchmarks.gate`)."""

from dataclasses import replace

from scipy.stats import binom

from benchmarks.gate import simulate
from lrm.evaluation.policy import DecisionPolicy, Policy, StagingPolicy

N_PAIRS = 200
POLICY = replace(Policy(), decision=DecisionPolicy(n_resamples=1000), staging=StagingPolicy(required=False))
LEVEL = 1 - POLICY.decision.confidence
ALLOWED = int(binom.ppf(0.99, N_PAIRS, LEVEL))
"""False promotions that a gate at its stated level stays within in 99 of 100 such simulations: 18 of 200."""


def test_of_200_null_pairs_no_more_are_promoted_than_the_stated_level_allows():
    found = simulate(N_PAIRS, 200, 0.0, POLICY, seed=1)
    assert ALLOWED == 18
    assert found.n_promoted <= found.n_primary <= LEVEL * N_PAIRS  # today at the level itself, without the allowance
    assert found.verdicts["keep"] == N_PAIRS - found.n_promoted


def test_a_worse_challenger_is_never_promoted_and_a_clearly_better_one_nearly_always():
    worse = simulate(50, 200, -0.02, POLICY, seed=2)
    assert worse.n_promoted == 0
    better = simulate(50, 500, 0.03, POLICY, seed=3)
    assert better.n_promoted >= 45
