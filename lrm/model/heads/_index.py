"""An index over a large catalogue: which items are worth a score, and what all items weigh together.

*Which*: the catalogue is divided into lists of near items (k-means), and a request looks through the lists whose
centres fit it best (an inverted file of FAISS, 1702.08734; vectors in half precision, because what is found gets its
score from the full ones). *Together*: a log-probability needs the sum over all items, which no index knows. It is exact
over what was found (Mussmann and Ermon, ICML 2016) and estimated for the rest from a sample in which each item counts
for as many as it stands for (Horvitz and Thompson 1952). It is drawn once: the likelier an item is after typical
requests the likelier it is drawn, with a tenth of the draws by chance alone; draws are spread evenly along the lists.

Shape suffixes: R requests, V items of the catalogue, C lists, M sampled items, F found items, D model width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

SEED = 0
N_SAMPLED = 16_384
"""Items of the sample; with these the score is off by about 0.001, and takes 0.04 ms a request."""
BY_CHANCE = 0.1
"""Share of the draws in which every item is alike, so that none stands for too many."""
TRAINED_ON = 64
"""Items of each list from which its centre is learned."""
ROUNDS = 10


class Plan(NamedTuple):
    """What an index is built from, worked out once for a release: arrays alone."""

    centre_CD: Tensor
    list_V: Tensor
    """int32, the list that each item is in."""
    sample_M: Tensor
    """int64, rows of the sampled items, ascending."""
    log_weight_M: Tensor
    """How many items each of them stands for, as a logarithm."""


class Index(NamedTuple):
    """A plan filled with the vectors of a catalogue."""

    lists: Any
    """`faiss.IndexIVFScalarQuantizer`"""
    effort: int
    """Lists that a request for few items looks through."""
    sample_M: np.ndarray
    sample_MD: Tensor
    log_weight_M: Tensor


def plan_index(vectors_VD: Tensor, probability_V: np.ndarray) -> Plan:
    """Divide a catalogue into about the square root of its size lists, and draw the sample.

    Args:
        vectors_VD: the vectors of the catalogue's items, on the processor.
        probability_V: how likely each item is after typical requests, on average.
    """
    import faiss

    n_items, width = vectors_VD.shape
    vectors = np.ascontiguousarray(vectors_VD.numpy(), dtype=np.float32)
    n_lists = 2 ** round(np.log2(np.sqrt(n_items)))
    rng = np.random.default_rng(SEED)
    trained_on = np.sort(rng.choice(n_items, min(n_items, TRAINED_ON * n_lists), replace=False))
    clustering = faiss.Clustering(width, n_lists)
    clustering.niter, clustering.seed, clustering.min_points_per_centroid = ROUNDS, SEED, 1
    nearest = faiss.IndexFlatL2(width)
    clustering.train(vectors[trained_on], nearest)
    centre_CD = faiss.vector_to_array(clustering.centroids).reshape(n_lists, width)
    list_V = nearest.search(vectors, 1)[1][:, 0].astype(np.int32)
    sample_M, log_weight_M = _drawn(probability_V, np.argsort(list_V, kind="stable"), rng)
    return Plan(*(torch.from_numpy(array) for array in (centre_CD, list_V, sample_M, log_weight_M)))


def open_index(plan: Plan, vectors_VD: Tensor, *, effort: int) -> Index:
    """Fill the lists of a plan with the vectors of its catalogue.

    Args:
        plan: of a catalogue of the same items in the same order.
        vectors_VD: their vectors, on the processor.
        effort: lists that a request for few items looks through.
    """
    import faiss

    n_lists, width = plan.centre_CD.shape
    centres = faiss.IndexFlatIP(width)
    centres.add(plan.centre_CD.numpy())
    kind = faiss.ScalarQuantizer.QT_fp16
    lists = faiss.IndexIVFScalarQuantizer(centres, width, n_lists, kind, faiss.METRIC_INNER_PRODUCT, False)
    lists.train(plan.centre_CD.numpy())
    vectors = np.ascontiguousarray(vectors_VD.numpy(), dtype=np.float32)
    list_V = plan.list_V.numpy().astype(np.int64)
    lists.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(list_V))
    return Index(lists, min(effort, n_lists), plan.sample_M.numpy(), vectors_VD[plan.sample_M], plan.log_weight_M)


def nearest_items(index: Index, request_RD: Tensor, n: int, *, n_lists: int) -> np.ndarray:
    """(R, F) rows of the items that fit each request best among those in its lists, best first, -1 where none is left.

    Args:
        index: of the catalogue.
        request_RD: the requests.
        n: items to find.
        n_lists: lists to look through.
    """
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())  # each library has its own number, and each thread too
    searched = faiss.SearchParametersIVF()
    searched.nprobe = min(n_lists, index.lists.nlist)
    found: np.ndarray = index.lists.search(request_RD.numpy(), n, params=searched)[1]
    return found


def log_total(index: Index, sampled_logit_M: Tensor, found: np.ndarray, logit_F: Tensor) -> Tensor:
    """Logarithm of the sum of exp(logit) over the catalogue: exact over what was found, estimated for the rest.

    Args:
        index: of the catalogue.
        sampled_logit_M: the request's logits of the sampled items.
        found: (F,) rows of what was found.
        logit_F: their logits.
    """
    place = np.searchsorted(index.sample_M, found).clip(max=len(index.sample_M) - 1)
    is_sampled = index.sample_M[place] == found
    weighed_M = sampled_logit_M + index.log_weight_M
    weighed_M[torch.from_numpy(place[is_sampled])] = float("-inf")
    return torch.logaddexp(logit_F.logsumexp(-1), weighed_M.logsumexp(-1))


def _drawn(probability_V: np.ndarray, order_V: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the sample, ascending, and the logarithm of how many items each stands for."""
    n_items = len(probability_V)
    n = min(N_SAMPLED, n_items)
    weight_V = (1 - BY_CHANCE) * probability_V / probability_V.sum() + BY_CHANCE / n_items
    chance_V = _chances(weight_V, n)
    ends = np.cumsum(chance_V[order_V])
    ticks = (np.arange(n) + rng.random()) * (ends[-1] / n)
    sample_M = np.unique(order_V[np.searchsorted(ends, ticks)])
    return sample_M, -np.log(chance_V[sample_M]).astype(np.float32)


def _chances(weight_V: np.ndarray, n: int) -> np.ndarray:
    """Of each item, the chance to be among `n` drawn by weight without repetition: none is above 1."""
    is_certain = np.zeros(len(weight_V), dtype=bool)
    while True:
        n_left, rest = n - is_certain.sum(), weight_V[~is_certain].sum()
        chance_V = np.where(is_certain, 1.0, weight_V * (n_left / rest if rest else 0.0))
        over = (chance_V > 1.0) & ~is_certain
        if not over.any():
            return chance_V
        is_certain |= over
