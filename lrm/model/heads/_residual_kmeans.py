"""Residual k-means: a vector as a short tuple of codes, each level coding what the levels before it left over.

As good as a residual variational autoencoder for semantic identifiers (2507.22224), and it has no loss to tune. The
centres begin spread out (k-means++), and a centre that no vector is nearest to is moved to the vector that is worst
served: so nearly all codes are used.

Shape suffixes: N vectors, W width, K codes of a level, L levels.
"""

from __future__ import annotations

import numpy as np

FITTED_ON = 100_000
"""Vectors at most that the centres are learned from; a seeded sample of more."""
ROUNDS = 20


def fit_codebooks(vector_NW: np.ndarray, *, n_levels: int, n_codes: int, seed: int) -> np.ndarray:
    """(L, K, W) float32 the centres of each level.

    Args:
        vector_NW: the vectors, at least one.
        n_levels: L.
        n_codes: K; of fewer distinct vectors, some centres repeat.
        seed: of the sample and the first centres.
    """
    rng = np.random.default_rng(seed)
    n = len(vector_NW)
    chosen = np.sort(rng.choice(n, FITTED_ON, replace=False)) if n > FITTED_ON else np.arange(n)
    residual_NW = vector_NW[chosen].astype(np.float32)
    levels = []
    for _ in range(n_levels):
        centre_KW = _kmeans(residual_NW, n_codes, rng)
        residual_NW = residual_NW - centre_KW[_distances(residual_NW, centre_KW).argmin(1)]
        levels.append(centre_KW)
    return np.stack(levels)


def codes_of(vector_NW: np.ndarray, codebook_LKW: np.ndarray) -> np.ndarray:
    """(N, L) int64 the nearest code of each level, taken greedily."""
    residual_NW = vector_NW.astype(np.float32)
    codes = []
    for centre_KW in codebook_LKW:
        code_N = _distances(residual_NW, centre_KW).argmin(1)
        residual_NW = residual_NW - centre_KW[code_N]
        codes.append(code_N)
    return np.stack(codes, axis=1).astype(np.int64)


def _kmeans(vector_NW: np.ndarray, n_codes: int, rng: np.random.Generator) -> np.ndarray:
    """(K, W) centres after `ROUNDS` rounds of Lloyd's algorithm."""
    centre_KW = _spread(vector_NW, n_codes, rng)
    for _ in range(ROUNDS):
        distance_NK = _distances(vector_NW, centre_KW)
        code_N, nearest_N = distance_NK.argmin(1), distance_NK.min(1)
        count_K = np.bincount(code_N, minlength=n_codes)
        total_KW = np.zeros_like(centre_KW)
        np.add.at(total_KW, code_N, vector_NW)
        is_used_K = count_K > 0
        moved_KW = centre_KW.copy()
        moved_KW[is_used_K] = total_KW[is_used_K] / count_K[is_used_K, None]
        dead = np.flatnonzero(~is_used_K)[: len(vector_NW)]
        worst = np.argsort(-nearest_N, kind="stable")[: len(dead)]
        moved_KW[dead] = vector_NW[worst]
        if np.array_equal(moved_KW, centre_KW):
            break
        centre_KW = moved_KW
    return centre_KW


def _spread(vector_NW: np.ndarray, n_codes: int, rng: np.random.Generator) -> np.ndarray:
    """(K, W) first centres: each is drawn with chance in proportion to its squared distance to those before it."""
    first = int(rng.integers(len(vector_NW)))
    chosen, nearest_N = [first], _distances(vector_NW, vector_NW[first : first + 1])[:, 0]
    for _ in range(n_codes - 1):
        cumulative_N = np.cumsum(nearest_N, dtype=np.float64)
        if cumulative_N[-1] > 0:
            place = int(np.searchsorted(cumulative_N, rng.random() * cumulative_N[-1], side="right"))
            place = min(place, len(vector_NW) - 1)
        else:
            place = int(rng.integers(len(vector_NW)))
        chosen.append(place)
        nearest_N = np.minimum(nearest_N, _distances(vector_NW, vector_NW[place : place + 1])[:, 0])
    return vector_NW[chosen].copy()


def _distances(vector_NW: np.ndarray, centre_KW: np.ndarray) -> np.ndarray:
    """(N, K) squared distances."""
    squared = (vector_NW**2).sum(1, keepdims=True) - 2 * vector_NW @ centre_KW.T + (centre_KW**2).sum(1)
    clipped: np.ndarray = np.maximum(squared, 0.0)
    return clipped
