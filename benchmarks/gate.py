"""How often the gate promotes: a challenger that is no better, and one that is better by a known amount.

    python -m benchmarks.gate --pairs 200 --users 200 1000

A pair is two models' NDCG@10 on every user, drawn so that the truth is known: each user has a level of their own, and
each model scores around it with noise of its own. In a *null* pair both models are equal in law. The real gate judges
each pair under the shipped policy without a staging check, with recall and concentration held alike, six slices of
users and 10,000 resamples; a promotion of a null pair is false. *Primary rule alone* counts
pairs whose deciding metric passed, whatever was guarded.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import positive, run
from benchmarks.common import keep_table, machine, markdown
from lrm.evaluation.estimates import CHALLENGER, CHAMPION, POPULAR, Comparison, compare
from lrm.evaluation.gate.gate import Decision, decide
from lrm.evaluation.gate.gate_inputs import PASSED, GateInputs
from lrm.evaluation.metrics.bootstrap import Draws, draw_users, interval, mean
from lrm.evaluation.policy import RETRIEVAL, Policy, StagingPolicy

K = 10
N_SLICES = 6
PRIMARY = "Retrieval NDCG@10 against the champion"

Values = NDArray[np.float64]


class Tally(NamedTuple):
    """What became of some pairs."""

    n_pairs: int
    n_promoted: int
    n_primary: int
    """Pairs whose deciding metric passed."""
    verdicts: Counter[str]


def pair(n_users: int, gain: float, rng: np.random.Generator) -> dict[str, Values]:
    """NDCG of two models on every user, the challenger's higher by `gain` in the mean; skewed, with many zeros."""
    level = np.where(rng.random(n_users) < 0.5, 0.0, rng.beta(2, 4, n_users))
    return {
        CHAMPION: level + 0.05 * rng.standard_t(5, n_users),
        CHALLENGER: level + 0.05 * rng.standard_t(5, n_users) + gain,
        POPULAR: np.zeros(n_users),
    }


def judge(models: Mapping[str, Values], draws: Draws, policy: Policy) -> Decision:
    """The gate's decision on one pair."""
    user = np.arange(models[CHAMPION].size)

    def compared(rows: NDArray[np.bool_], metric: str, name: str = "") -> list[Comparison]:
        found = {model: {metric: mean(draws, user[rows], values[rows])} for model, values in models.items()}
        confidence, margin = policy.decision.confidence, policy.slices.margin
        return compare(found, task=RETRIEVAL, confidence=confidence, slice_name=name, margin=margin)

    everyone = np.ones(user.size, dtype=bool)
    comparisons = [row for metric in ("ndcg", "recall") for row in compared(everyone, f"{metric}@{K}")]
    comparisons += [row for i in range(N_SLICES) for row in compared(user % N_SLICES == i, f"ndcg@{K}", f"slice {i}")]
    alike = interval(mean(draws, user, np.full(user.size, 0.2)), confidence=policy.decision.confidence)
    comparisons.append(Comparison(RETRIEVAL, f"concentration@{K}", CHAMPION, 0.0, 0.0, 0.0, 1.0, user.size))
    values = {model: {RETRIEVAL: {f"coverage@{K}": alike}} for model in (CHALLENGER, CHAMPION)}
    return decide(GateInputs(comparisons, values, {RETRIEVAL: user.size}, has_champion=True, k=K), policy)


def simulate(n_pairs: int, n_users: int, gain: float, policy: Policy, *, seed: int) -> Tally:
    """Judge many pairs; the draws of users are the same for all, the pairs are not."""
    rng = np.random.default_rng(seed)
    draws = draw_users(n_users, policy.decision.n_resamples, rng)
    decisions = [judge(pair(n_users, gain, rng), draws, policy) for _ in range(n_pairs)]
    verdicts = Counter(decision.verdict for decision in decisions)
    n_primary = sum(
        rule_result.outcome == PASSED
        for decision in decisions
        for rule_result in decision.rule_results
        if rule_result.rule == PRIMARY
    )
    return Tally(n_pairs, verdicts["promote"], n_primary, verdicts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=positive, default=200)
    parser.add_argument("--users", type=positive, nargs="+", default=[200, 1000])
    parser.add_argument("--gains", type=float, nargs="+", default=[0.0, 0.005, 0.01, 0.02])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    policy, rows = Policy(staging=StagingPolicy(required=False)), []
    level = 1 - policy.decision.confidence
    for n_users in asked.users:
        for gain in asked.gains:
            found = simulate(asked.pairs, n_users, gain, policy, seed=asked.seed)
            others = ", ".join(f"{name} {n}" for name, n in sorted(found.verdicts.items()) if name != "promote")
            rows.append((
                f"{n_users:,}", f"{gain:+.3f}" if gain else "none", found.n_pairs, found.n_promoted,
                f"{found.n_promoted / found.n_pairs:.1%}", f"{found.n_primary / found.n_pairs:.1%}",
                f"{level:.0%}" if not gain else "", others,
            ))  # fmt: skip
    header = ("users", "true gain", "pairs", "promoted", "share", "primary rule alone", "stated level", "the others")
    print(f"{markdown(header, rows)}\n\n{policy.decision.n_resamples:,} resamples; {machine()}")
    keep_table("gate", {"rows": rows})


if __name__ == "__main__":
    run(main)
