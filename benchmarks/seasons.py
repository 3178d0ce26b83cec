"""How often a season of retrainings promotes a model that is no better, and how often it finds a gain that there is.

    python -m benchmarks.seasons --seasons 1000

A season is 30 daily retrainings. Every user has a level of their own, every model a taste of its own for each user, and
the value of a request (an NDCG) is level, taste and noise. All models are equal in law: each promotion is false.
The windows stay the same, or move on by a day with each look. The deciding rule alone is judged, with the intervals of
`lrm.evaluation.gate.alpha_spending`, and beside it as if every look were the first. `a gain found` is of models that
are better by `--gain`, at the first look of a season and at its last, when nothing was promoted before.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import positive, run
from benchmarks.common import keep_table, machine, markdown
from lrm.evaluation.gate.alpha_spending import Look, Looks, earlier, window
from lrm.evaluation.metrics.bootstrap import Draws, Statistic, draw_users, interval, mean, minus
from lrm.evaluation.policy import Policy

DAY = 24 * 3600 * 10**6
"""In microseconds, as the instants of requests are."""
TASTE, NOISE = 0.05, 0.1
N_RESAMPLES = 2000

Values = NDArray[np.float64]


class World(NamedTuple):
    """The requests of a season, and what all models have in common on them."""

    user: NDArray[np.int64]
    day: NDArray[np.int64]
    base: Values


class Season(NamedTuple):
    """How 30 looks ended."""

    spent: int
    """Promotions where the level is spent over the looks, and where each look takes all of it."""
    unspent: int


def world(n_users: int, n_days: int, rng: np.random.Generator) -> World:
    """Each user asks on about every third day."""
    asks = rng.random((n_users, n_days)) < 1 / 3
    user, day = np.nonzero(asks)
    level = np.where(rng.random(n_users) < 0.5, 0.0, rng.beta(2, 4, n_users))
    return World(user, day, level[user] + NOISE * rng.normal(size=user.size))


def answers(here: World, n_users: int, rng: np.random.Generator) -> Values:
    """A model's value of each request, equal in law for all models."""
    taste = TASTE * rng.standard_t(5, n_users)
    return here.base + taste[here.user] + TASTE * rng.normal(size=here.user.size)


def windows(n_looks: int, n_days: int, step: int) -> Iterator[tuple[int, int]]:
    """First day and day after the last of each look's test window."""
    for look in range(n_looks):
        yield look * step, look * step + n_days


def gain(here: World, draws: Draws, span: tuple[int, int], own: Values, other: Values) -> Statistic:
    """The paired difference of two models on one window."""
    rows = (here.day >= span[0]) & (here.day < span[1])
    return minus(*(mean(draws, here.user[rows], values[rows]) for values in (own, other)))


def times(here: World, span: tuple[int, int]) -> NDArray[np.int64]:
    """The instants of a window's requests."""
    return here.day[(here.day >= span[0]) & (here.day < span[1])] * DAY


def looks_of(here: World, spans: list[tuple[int, int]]) -> list[Looks]:
    """What earlier looks leave to each look of a season."""
    known, found = list[Look](), list[Looks]()
    for at, span in enumerate(spans):
        asked = times(here, span)
        found.append(earlier(known, asked, data="season", weights_sha256=f"{at}", has_champion=True))
        ends = {name: str(value) for name, value in window(asked).items()}
        known.append(Look(f"{at}", f"{at}", "season", ends["judged_from"], ends["judged_until"], "champion"))
    return found


def season(
    here: World, draws: Draws, spans: list[tuple[int, int]], *, n_users: int, policy: Policy, seed: int
) -> Season:
    """Promotions among models that are all equal."""
    promoted = []
    for leaves in (looks_of(here, spans), [Looks()] * len(spans)):
        rng = np.random.default_rng(seed)
        champion, n = answers(here, n_users, rng), 0
        for span, left in zip(spans, leaves, strict=True):
            challenger = answers(here, n_users, rng)
            seen = gain(here, draws, span, challenger, champion)
            if _promotes(seen, left, policy):
                champion, n = challenger, n + 1
        promoted.append(n)
    return Season(*promoted)


def found_at(
    here: World,
    draws: Draws,
    spans: list[tuple[int, int]],
    *,
    n_users: int,
    policy: Policy,
    better_by: float,
    seed: int,
) -> tuple[bool, bool]:
    """Whether a model that is better is promoted at the first look, and at the last."""
    rng, leaves = np.random.default_rng(seed), looks_of(here, spans)
    champion, challenger = (answers(here, n_users, rng) + more for more in (0.0, better_by))
    first, last = (_promotes(gain(here, draws, spans[at], challenger, champion), leaves[at], policy) for at in (0, -1))
    return first, last


def _promotes(seen: Statistic, left: Looks, policy: Policy) -> bool:
    """The deciding rule."""
    bounds = interval(seen, confidence=left.confidence(policy.decision.confidence))
    return bounds.low > 0 and seen.value >= policy.decision.min_gain


def simulate(
    n_seasons: int, *, n_users: int, n_days: int, step: int, n_looks: int, better_by: float, seed: int
) -> dict[str, float]:
    """Shares of seasons with a promotion, and of gains that were found."""
    policy, rng = Policy(), np.random.default_rng(seed)
    draws = draw_users(n_users, N_RESAMPLES, rng)
    spans = list(windows(n_looks, n_days, step))
    ended, found = [], []
    for at in range(n_seasons):
        here = world(n_users, spans[-1][1], rng)
        place = {"n_users": n_users, "policy": policy, "seed": seed * n_seasons + at}
        ended.append(season(here, draws, spans, **place))
        if better_by:
            found.append(found_at(here, draws, spans, better_by=better_by, **place))
    first, last = np.mean(found, axis=0) if found else (float("nan"), float("nan"))
    return {
        "spent": float(np.mean([one.spent > 0 for one in ended])),
        "unspent": float(np.mean([one.unspent > 0 for one in ended])),
        "first": float(first),
        "last": float(last),
        "confidence": looks_of(here, spans)[-1].confidence(policy.decision.confidence),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seasons", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seasons", type=positive, default=1000)
    parser.add_argument("--users", type=positive, default=200)
    parser.add_argument("--looks", type=positive, default=30)
    parser.add_argument("--days", type=positive, default=14, help="of a test window")
    parser.add_argument("--gain", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    asked, rows = parser.parse_args(), []
    for step, how in (
        (0, "one window"),
        (1, "a window that moves on by a day"),
        (asked.days, "windows that do not overlap"),
    ):
        found = simulate(
            asked.seasons, n_users=asked.users, n_days=asked.days, step=step, n_looks=asked.looks, better_by=asked.gain,
            seed=asked.seed,
        )  # fmt: skip
        shares = [f"{found[what]:.1%}" for what in ("unspent", "spent", "first", "last")]
        rows.append((how, *shares[:2], f"{found['confidence']:.3%}", *shares[2:]))
    header = ("test windows", "false promotion in a season, each look as the first", "level spent over the looks",
              "interval of the last look", "gain found at the first look", "at the last")  # fmt: skip
    told = f"{asked.seasons:,} seasons of {asked.looks} looks, {asked.users:,} users, windows of {asked.days} days"
    print(f"{markdown(header, rows)}\n\n{told}, gain {asked.gain:+.3f}; {machine()}")
    keep_table("seasons", {"rows": rows})


if __name__ == "__main__":
    run(main)
