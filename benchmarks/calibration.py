"""How often a challenger whose calibration is worse by the margin passes it, and one that is as good.

    python -m benchmarks.calibration --pairs 200 --users 50 200 1000 5000

Outcomes follow a logistic model of what both models see, of what each sees alone, and of what neither sees: a taste of
each user, by which the 50 rows of a user hang together. A model that is calibrated gives the mean outcome of what it
sees, so the true calibration error is that of the probabilities against those. *By difference* is
the upper end of the bootstrap interval of the difference of two estimates, which is what noise pulls to zero.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.command import positive, run
from benchmarks.common import keep_table, machine, markdown
from lrm.evaluation.metrics.bootstrap import calibration_error, draw_users, interval, minus
from lrm.evaluation.metrics.calibration import difference
from lrm.evaluation.metrics.metrics import calibration, expected_calibration_error

N_ROWS = 50
N_RESAMPLES = 1000
BASE, SEEN, ALONE, TASTE = -1.5, 1.0, 0.3, 0.5
"""Mean log odds; deviations of what both models see, of what each sees alone, and of a user's taste."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)

Values = NDArray[np.float64]
Change = Callable[[Values, float], Values]


class World(NamedTuple):
    """Rows with the log odds that each model knows of, and their true chance."""

    champion: Values
    challenger: Values
    chance: Values
    is_alike: bool


def draw(n_users: int, rng: np.random.Generator, *, is_alike: bool) -> World:
    """Rows of users; `is_alike`: the two models see the same."""
    n = n_users * N_ROWS
    seen = BASE + SEEN * rng.normal(size=n)
    first, second = (ALONE * rng.normal(size=n) for _ in range(2))
    taste = np.repeat(TASTE * rng.normal(size=n_users), N_ROWS)
    return World(
        seen + first, seen + (first if is_alike else second), _logistic(seen + first + second + taste), is_alike
    )


def calibrated(log_odds: Values) -> Values:
    """The mean outcome where the rest is not seen."""
    unseen = (ALONE**2 + TASTE**2) ** 0.5
    return (
        sum(weight * _logistic(log_odds + unseen * node) for node, weight in zip(NODES, WEIGHTS, strict=True))
        / (2 * np.pi) ** 0.5
    )


def _logistic(log_odds: Values) -> Values:
    return 1 / (1 + np.exp(-log_odds))


def _odds(p: Values) -> Values:
    return np.log(p / (1 - p))


def shifted(p: Values, by: float) -> Values:
    return _logistic(_odds(p) + by)


def sharpened(p: Values, by: float) -> Values:
    return _logistic(_odds(p) * (1 + by))


SCENES: dict[str, tuple[bool, Change, float, Change]] = {
    "too high": (True, shifted, 0.0, shifted),
    "too sure": (True, shifted, 0.0, sharpened),
    "both too high": (True, shifted, 0.1, shifted),
    "too low, after too high": (True, shifted, 0.1, lambda p, by: shifted(p, -by)),
    "too high, others see other things": (False, shifted, 0.0, shifted),
    "too sure, others see other things": (False, shifted, 0.0, sharpened),
}
"""{name: whether both see the same, how the champion errs and by how much, how the challenger errs}."""


@functools.cache
def size_of(scene: str, worse_by: float) -> float:
    """By how much the challenger errs, for its ECE to be above the champion's by `worse_by`."""
    _, change, by, own = SCENES[scene]
    even = ndtri((np.arange(200_000) + 0.5) / 200_000)
    log_odds = BASE + (SEEN**2 + ALONE**2) ** 0.5 * even
    p, low, high = calibrated(log_odds), 0.0, 2.0
    wanted = worse_by + true_error(change(p, by), p)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if true_error(own(p, middle), p) < wanted else (low, middle)
    return high


def true_error(p: Values, chance: Values) -> float:
    """The ECE where the mean outcome of rows alike is known."""
    return expected_calibration_error(calibration(p, chance))


def simulate(
    scene: str, worse_by: float | None, *, n_users: int, n_pairs: int, margin: float, seed: int
) -> tuple[float, float]:
    """Shares of pairs that pass the margin: by the bound, and by the difference; None: as good as the champion."""
    is_alike, change, by, own = SCENES[scene]
    size = None if worse_by is None else size_of(scene, worse_by)
    rng, passed = np.random.default_rng(seed), np.zeros(2)
    user, draws = np.repeat(np.arange(n_users), N_ROWS), draw_users(n_users, N_RESAMPLES, rng)
    for _ in range(n_pairs):
        world = draw(n_users, rng, is_alike=is_alike)
        labels = (rng.random(world.chance.size) < world.chance).astype(float)
        other = change(calibrated(world.champion), by)
        p = calibrated(world.challenger)
        mine = change(p, by) if size is None else own(p, size)
        bound, _ = difference(draws, user, mine, other, labels, confidence=0.95)
        plain = minus(*(calibration_error(draws, user, each, labels) for each in (mine, other)))
        passed += [bound.high <= margin, interval(plain, confidence=0.95).high <= margin]
    return float(passed[0] / n_pairs), float(passed[1] / n_pairs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=positive, default=200)
    parser.add_argument("--users", type=positive, nargs="+", default=[50, 200, 1000, 5000])
    parser.add_argument("--margin", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=0)
    asked, rows = parser.parse_args(), []
    for scene in SCENES:
        for worse_by in (asked.margin, 1.6 * asked.margin, None):
            found = [
                simulate(scene, worse_by, n_users=n, n_pairs=asked.pairs, margin=asked.margin, seed=asked.seed)
                for n in asked.users
            ]
            truth = "as good" if worse_by is None else f"{worse_by:+.3f}"
            rows.append((scene, truth, *(f"{bound:.1%} ({plain:.1%})" for bound, plain in found)))
    header = ("challenger", "true difference", *(f"{n:,} users" for n in asked.users))
    told = f"margin {asked.margin:g}, {asked.pairs} pairs, {N_ROWS} rows a user; passing (by difference)"
    print(f"{markdown(header, rows)}\n\n{told}; {machine()}")
    keep_table("calibration", {"rows": rows})


if __name__ == "__main__":
    run(main)
