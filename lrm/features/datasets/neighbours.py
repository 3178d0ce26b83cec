"""What a user's earlier ratings say about a movie, by how others who rated the same movies leaned.

Ratings are compared as *residuals*: what is left of the stars after the movie's usual rating and the user's own
leaning. Two movies agree as far as users who rated both were surprised by both in one direction. A movie's signal is
the mean residual of the user's earlier ratings, weighted by agreement, or by how often the pair is rated together.
Everything is learned in one pass in time order, so a rating knows strictly earlier ratings alone.

Shapes: V movies in all, H earlier ratings of one user, M ratings of that user at one instant.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

SHRINK_AGREEMENT = 10.0
"""Squared residuals added to a pair's norm: agreement of few users counts for little."""
SHRINK_TOGETHER = 10.0
"""Ratings added to each movie's count in the share of users that rated both."""
SHRINK_LEANING = 3.0
"""Ratings at the usual value added to a user's own."""
ABSENT_WEIGHT = 0.5
"""Weight of a neighbour with residual 0 that every mean includes."""


class Neighbours:
    """Running sums over pairs of movies, and every user's earlier ratings."""

    def __init__(self, *, n_users: int, n_items: int) -> None:
        self._products = np.zeros((n_items, n_items), dtype=np.float32)
        self._squares = np.zeros((n_items, n_items), dtype=np.float32)
        """(V, V) [i, j]: squared residuals at i, over users who rated i and j."""
        self._together = np.zeros((n_items, n_items), dtype=np.float32)
        self._counts = np.zeros(n_items)
        self._rated: list[list[int]] = [[] for _ in range(n_users)]
        self._surprises: list[list[float]] = [[] for _ in range(n_users)]

    def signals(self, user: int, items: np.ndarray) -> np.ndarray:
        """(M, 3): mean residual by agreement, the sum of its weights, mean residual by rating together."""
        earlier, residuals, _ = self._earlier(user)
        at = np.ix_(items, earlier)
        norm = np.sqrt(self._squares[at] * self._squares.T[at]) + SHRINK_AGREEMENT
        agreement = self._products[at] / norm
        weight = np.abs(agreement).sum(1)
        size = self._counts + SHRINK_TOGETHER
        share = self._together[at] / np.sqrt(np.outer(size[items], size[earlier]))
        by_agreement = agreement @ residuals / (weight + ABSENT_WEIGHT)
        by_share = share @ residuals / (share.sum(1) + ABSENT_WEIGHT)
        return np.stack([by_agreement, weight, by_share], axis=1)

    def learn(self, user: int, items: np.ndarray, surprises: np.ndarray) -> None:
        """Take in what a user rated at one instant."""
        for item, surprise in zip(items.tolist(), surprises.tolist(), strict=True):
            earlier, residuals, leaning = self._earlier(user)
            residual = surprise - leaning
            self._products[item, earlier] += residual * residuals
            self._products[earlier, item] += residual * residuals
            self._squares[item, earlier] += residual**2
            self._squares[earlier, item] += residuals**2
            self._together[item, earlier] += 1
            self._together[earlier, item] += 1
            self._counts[item] += 1
            self._rated[user].append(item)
            self._surprises[user].append(surprise)

    def _earlier(self, user: int) -> tuple[np.ndarray, np.ndarray, float]:
        """The movies a user has rated (H,), the residuals (H,), and the user's leaning."""
        surprises = np.array(self._surprises[user])
        leaning = float(surprises.sum() / (len(surprises) + SHRINK_LEANING))
        return np.array(self._rated[user], dtype=np.int64), surprises - leaning, leaning


def neighbour_signals(rows: pl.DataFrame) -> pl.DataFrame:
    """The signals of every rating.

    Args:
        rows: user_id, item_id, seconds, surprise (stars above the movie's usual rating), each movie once a user.

    Returns:
        user_id, item_id, seconds, neighbour_residual, neighbour_weight, together_residual, in time order.
    """
    rows = rows.sort("seconds", "user_id", "item_id")
    users, items = (rows[key].rank("dense").to_numpy().astype(np.int64) - 1 for key in ("user_id", "item_id"))
    surprises = rows["surprise"].to_numpy()
    known = Neighbours(n_users=int(users.max()) + 1, n_items=int(items.max()) + 1)
    found = np.zeros((rows.height, 3), dtype=np.float32)
    for instant in _stretches(rows["seconds"].to_numpy()):
        visits = [slice(instant.start + v.start, instant.start + v.stop) for v in _stretches(users[instant])]
        for visit in visits:
            found[visit] = known.signals(int(users[visit.start]), items[visit])
        for visit in visits:
            known.learn(int(users[visit.start]), items[visit], surprises[visit])
    names = ("neighbour_residual", "neighbour_weight", "together_residual")
    return rows.select("user_id", "item_id", "seconds").with_columns(
        pl.Series(name, found[:, place]) for place, name in enumerate(names)
    )


def _stretches(values: np.ndarray) -> Iterator[slice]:
    """The stretches of equal neighbours."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        yield slice(int(start), int(stop))
