"""A paired bootstrap over users: this project's draws against scipy's, on one metric of two models.

    python -m benchmarks.bootstrap --users 1000 10000 100000

Both draw users with replacement `--resamples` times and give the 95 % percentile interval of the mean difference. Ours
draws once for all metrics (`lrm.evaluation.metrics.bootstrap`): `a metric` is what each of them costs besides.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import positive, run
from benchmarks.common import keep_table, machine, markdown
from lrm.evaluation.metrics.bootstrap import draw_users, interval, mean, minus

Values = NDArray[np.float64]


def per_user(n_users: int, rng: np.random.Generator) -> tuple[Values, Values]:
    """A metric of two models for each user: skewed as NDCG is, the second a little better."""
    first = np.where(rng.random(n_users) < 0.6, 0.0, rng.beta(2, 3, n_users))
    second = np.clip(first + rng.normal(0.002, 0.1, n_users) * (first > 0), 0, 1)
    return first, second


def ours(first: Values, second: Values, n_resamples: int) -> tuple[float, float, float, float]:
    """Seconds of the draws, seconds of the metric, and the interval's bounds."""
    user, began = np.arange(first.size), time.perf_counter()
    draws = draw_users(first.size, n_resamples, np.random.default_rng(0))
    drawn = time.perf_counter()
    found = interval(minus(mean(draws, user, second), mean(draws, user, first)), confidence=0.95)
    return drawn - began, time.perf_counter() - drawn, found.low, found.high


def scipys(first: Values, second: Values, n_resamples: int) -> tuple[float, float, float]:
    """Seconds and bounds of scipy.stats.bootstrap, vectorised in batches that fit in memory."""
    from scipy.stats import bootstrap

    began = time.perf_counter()
    found = bootstrap(
        (second - first,),
        np.mean,
        n_resamples=n_resamples,
        batch=max(1, 20_000_000 // first.size),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return time.perf_counter() - began, float(found.low), float(found.high)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bootstrap", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--users", type=positive, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--resamples", type=positive, default=10_000)
    asked = parser.parse_args()
    rows = []
    for n_users in asked.users:
        first, second = per_user(n_users, np.random.default_rng(1))
        seconds, low, high = scipys(first, second, asked.resamples)
        drawing, metric, own_low, own_high = ours(first, second, asked.resamples)
        faster = seconds / (drawing + metric)
        rows.append((
            f"{n_users:,}", f"{drawing:.2f}", f"{metric:.3f}", f"{seconds:.2f}", f"{faster:.1f}",
            f"{own_low:+.5f} to {own_high:+.5f}", f"{low:+.5f} to {high:+.5f}",
        ))  # fmt: skip
    header = ("users", "draws, s", "a metric, s", "scipy, s", "times faster", "our interval", "scipy's interval")
    print(f"{markdown(header, rows)}\n\n{asked.resamples:,} resamples; {machine()}")
    keep_table("bootstrap", {"rows": rows})


if __name__ == "__main__":
    run(main)
