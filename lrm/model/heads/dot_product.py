"""Score an item by the dot product of a state and the item's own vector; the default head.

The vector is the one that names the item in prompts (tied weights). Over a small catalogue the logits are one matrix
product. Over a large one an index (`_index`) names the items that may be best and estimates the sum that makes a
probability of a logit: an item may be missed, and all scores of a request are off by the same small amount. What an
index cannot answer is answered by the product.

Shape suffixes: R requests, P predictions, V items of the catalogue, S items that may be among the best, F found items,
M sampled items, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lrm.errors import ConfigError, DataError
from lrm.model.heads import Best, Design, Wanted
from lrm.model.heads._cross_entropy import Seen, mean_nll
from lrm.model.heads._index import Index, Plan, log_total, nearest_items, open_index, plan_index
from lrm.model.heads._softmax import Catalogue, CatalogueSoftmax, allowed, pointed_at, ranked
from lrm.model.states import States

FOUND = 128
"""Items that an index finds for a request for few; over these the sum is exact."""
FOUND_EACH = 4
"""Items that it finds for each one wanted."""


class DotProduct:
    """Logits as products, or as cosines over a temperature."""

    def __init__(self, *, normalise: bool, temperature: float) -> None:
        if temperature <= 0:
            raise ConfigError(f"the option temperature of the item head must be positive, got {temperature}")
        self._normalise, self._temperature = normalise, temperature

    def rows(self, vector_VD: Tensor) -> Tensor:
        """(V, D) the vectors, of length 1 where they are normalised."""
        return functional.normalize(vector_VD, dim=-1) if self._normalise else vector_VD

    def queries(self, state_PD: Tensor) -> Tensor:
        """(P, D) the states, likewise, over the temperature."""
        query_PD = functional.normalize(state_PD, dim=-1) if self._normalise else state_PD
        return query_PD if self._temperature == 1 else query_PD / self._temperature

    def all_pairs(self, query_PD: Tensor, item_VD: Tensor) -> Tensor:
        """(P, V)."""
        return query_PD @ item_VD.T

    def pairs(self, query_PD: Tensor, item_PD: Tensor) -> Tensor:
        """(P,)."""
        return (query_PD * item_PD).sum(-1)

    def some(self, query_D: Tensor, item_SD: Tensor) -> Tensor:
        """(S,)."""
        return item_SD @ query_D

    def mean_nll(
        self, query_PD: Tensor, item_VD: Tensor, class_P: Tensor, seen: Seen | None, bias: Tensor | None
    ) -> Tensor:
        """Compute it without ever holding all logits."""
        kind = query_PD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query_PD.dtype
        return mean_nll(query_PD.to(dtype), item_VD.to(dtype), class_P, seen=seen, bias=bias)

    def penalty(self, query_PD: Tensor, item_PD: Tensor) -> None:
        """There is none."""


class Head(CatalogueSoftmax):
    """The dot product under a softmax over the catalogue, with an index for large ones."""

    def __init__(
        self, design: Design, *, copy_head: bool = True, normalise: bool = False, temperature: float = 1.0
    ) -> None:
        """Build the head.

        Args:
            design: what it is built for.
            copy_head: whether what follows a request may be copied from the user's own history.
            normalise: whether states and item vectors have length 1.
            temperature: what logits are divided by.
        """
        super().__init__(design.config, DotProduct(normalise=normalise, temperature=temperature), copy_head=copy_head)

    @torch.inference_mode()
    def best(
        self, states: States, rows: Sequence[np.ndarray], wanted: Mapping[int, Wanted], catalogue: Catalogue
    ) -> dict[int, Best]:
        """The best items for some of the requests: by the index where it can answer, else by the product."""
        found = {} if catalogue.index is None else self._by_index(states, rows, wanted, catalogue)
        rest = {r: asked for r, asked in wanted.items() if r not in found}
        return found | super().best(states, rows, rest, catalogue)

    @torch.inference_mode()
    def plan_index(self, catalogue: Catalogue, asked: Sequence[States]) -> dict[str, Tensor]:
        """Divide the catalogue into lists, and draw a sample by how likely items are for these requests."""
        vector_VD = catalogue.item_VW
        queries = self.similarity.queries
        total_V = sum((queries(states.request_RD) @ vector_VD.T).softmax(-1).sum(0).double() for states in asked)
        probability_V = np.asarray(total_V / sum(len(states.request_RD) for states in asked))
        return plan_index(vector_VD, probability_V)._asdict()

    def n_lists(self, plan: Mapping[str, Tensor]) -> int:
        """Lists of the catalogue."""
        return len(plan["centre_CD"])

    def open_index(self, catalogue: Catalogue, plan: Mapping[str, Tensor], *, effort: int) -> Catalogue:
        """The catalogue with its index; unchanged on a GPU, where the product is quicker at any size that fits."""
        n_planned, n_items = len(plan["list_V"]), len(catalogue.item_VW)
        if n_planned != n_items:
            raise DataError(f"is of another catalogue: it has {n_planned:,} items, the release {n_items:,}")
        if catalogue.item_VW.device.type != "cpu":
            return catalogue
        return catalogue._replace(index=open_index(Plan(**plan), catalogue.item_VW, effort=effort))

    def with_effort(self, catalogue: Catalogue, effort: int) -> Catalogue:
        """The catalogue with the same index, of which a request looks through so many lists."""
        index = catalogue.index
        return catalogue if index is None else catalogue._replace(index=index._replace(effort=effort))

    def effort(self, catalogue: Catalogue) -> int | None:
        """Lists that a request for few items looks through; None where there is no index."""
        return None if catalogue.index is None else int(catalogue.index.effort)

    def compare(
        self, catalogue: Catalogue, states: States, request: int, found: Best, exact: Best, *, as_good: float
    ) -> tuple[float, float]:
        """Recall by distance (as in ann-benchmarks, 1807.05614), and the largest error of a score."""
        vector_VD, query_D = catalogue.item_VW, self.similarity.queries(states.request_RD[request])
        found_logit, exact_logit = ((vector_VD[rows] @ query_D).numpy() for rows in (found.rows, exact.rows))
        recall = float((found_logit >= exact_logit[-1] - as_good).sum() / len(exact_logit))
        error = np.abs((found.scores - found_logit) - (exact.scores[0] - exact_logit[0])).max(initial=0.0)
        return recall, float(error)

    def _by_index(
        self, states: States, rows: Sequence[np.ndarray], wanted: Mapping[int, Wanted], catalogue: Catalogue
    ) -> dict[int, Best]:
        """The best items of those requests that the index can answer."""
        index: Index = catalogue.index
        vector_VD = catalogue.item_VW
        depths: dict[int, list[int]] = {}
        for r, asked in wanted.items():
            depths.setdefault(_depth(asked), []).append(r)
        found = {}
        for depth, requests in depths.items():
            if depth > len(vector_VD):
                continue
            query_RD = self.similarity.queries(states.request_RD[requests])
            nearest_RF = nearest_items(index, query_RD, depth, n_lists=index.effort * max(1, depth // (4 * FOUND)))
            sampled_RM = query_RD @ index.sample_MD.T
            for r, query_D, nearest_F, sampled_M in zip(requests, query_RD, nearest_RF, sampled_RM, strict=True):
                history, asked = pointed_at(states, r, rows[r]), wanted[r]
                summed_S = np.union1d(nearest_F[:FOUND][nearest_F[:FOUND] >= 0], history.seen)
                logit_S = self.logits_of(vector_VD, query_D, history.seen, summed_S)
                total = log_total(index, sampled_M, summed_S, logit_S)
                chosen_S = allowed(asked, np.union1d(nearest_F[nearest_F >= 0], summed_S))
                if asked.only is None and len(chosen_S) < asked.k:
                    continue
                if not np.array_equal(chosen_S, summed_S):
                    logit_S = self.logits_of(vector_VD, query_D, history.seen, chosen_S)
                found[r] = ranked(chosen_S, logit_S - total, history, asked.k)
        return found


def _depth(wanted: Wanted) -> int:
    """Items that an index finds for a request: a power of two, so that like requests are looked up together."""
    if wanted.only is not None:
        return FOUND
    n = FOUND_EACH * wanted.k + (0 if wanted.without is None else len(wanted.without))
    return max(FOUND, 1 << (n - 1).bit_length())
