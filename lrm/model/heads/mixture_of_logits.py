"""Score an item by a mixture of many small products (mixture of logits, 2306.04039 and 2407.15462).

State and item each become a few vectors of length 1. All pairs of them give logits, and a gate that reads state, item
and logits says how much each counts: a score that no single dot product can express. The price is an exact search over
all items. The rest is as with `dot_product`: softmax over the catalogue, copy head or bias of the items seen, sampled
negatives. Unlike the published head there is no vector of the user's id: users have no identity here.

Shape suffixes: P predictions, V items of the catalogue, N rows, A vectors of a state, B vectors of an item, C width of
a vector, M = A * B pairs, D model width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrm.errors import ConfigError
from lrm.model.heads import Design
from lrm.model.heads._cross_entropy import Seen
from lrm.model.heads._softmax import CatalogueSoftmax

PAIRS_AT_ONCE = 2**21
"""States times items whose logits are mixed at a time: bounds memory, changes no score."""


class MixtureOfLogits(nn.Module):
    """The logits. A query is the vectors of a state and its part of the gate, side by side; an item likewise."""

    def __init__(
        self,
        *,
        d_model: int,
        n_query: int,
        n_item: int,
        width: int,
        hidden: int,
        temperature: float,
        gate_dropout: float,
        balance: float,
    ) -> None:
        super().__init__()
        self._n_query, self._n_item, self._width = n_query, n_item, width
        self._temperature, self._balance = temperature, balance
        n_pairs = n_query * n_item
        self.query = nn.Sequential(nn.Linear(d_model, hidden), nn.SiLU(), nn.Linear(hidden, n_query * width))
        self.item = nn.Linear(d_model, n_item * width)
        self.query_gate = nn.Sequential(nn.Linear(d_model, hidden), nn.SiLU(), nn.Linear(hidden, n_pairs))
        self.item_gate = nn.Sequential(nn.Linear(d_model, hidden), nn.SiLU(), nn.Linear(hidden, n_pairs))
        self.logit_gate = nn.Sequential(nn.Linear(n_pairs, hidden), nn.SiLU(), nn.Linear(hidden, n_pairs))
        self.gate_dropout = nn.Dropout(gate_dropout)

    def rows(self, vector_VD: Tensor) -> Tensor:
        """(V, B * C + M)."""
        return torch.cat([self._parts(self.item(vector_VD), self._n_item), self.item_gate(vector_VD)], dim=-1)

    def queries(self, state_PD: Tensor) -> Tensor:
        """(P, A * C + M), or without P for one state."""
        return torch.cat([self._parts(self.query(state_PD), self._n_query), self.query_gate(state_PD)], dim=-1)

    def all_pairs(self, query_PQ: Tensor, item_VW: Tensor) -> Tensor:
        """(P, V)."""
        at_once = max(1, PAIRS_AT_ONCE // max(1, len(item_VW)))
        chunks = torch.split(query_PQ, at_once)
        parts = [self._mixed(query_CQ.unsqueeze(1), item_VW.unsqueeze(0))[0] for query_CQ in chunks]
        return torch.cat(parts) if parts else query_PQ.new_zeros(0, len(item_VW))

    def pairs(self, query_PQ: Tensor, item_PW: Tensor) -> Tensor:
        """(P,)."""
        return self._mixed(query_PQ, item_PW)[0]

    def some(self, query_Q: Tensor, item_SW: Tensor) -> Tensor:
        """(S,)."""
        return self.all_pairs(query_Q.unsqueeze(0), item_SW)[0]

    def mean_nll(
        self, query_PQ: Tensor, item_VW: Tensor, class_P: Tensor, seen: Seen | None, bias: Tensor | None
    ) -> Tensor:
        """Over the logits of all items."""
        logit_PV = self.all_pairs(query_PQ, item_VW)
        if seen is not None and bias is not None:
            is_seen_PV = torch.zeros_like(logit_PV).index_put((seen.row_S, seen.class_S), logit_PV.new_ones(()))
            logit_PV = logit_PV + bias * is_seen_PV
        return functional.cross_entropy(logit_PV, class_P, reduction="sum") / max(1, len(class_P))

    def penalty(self, query_PQ: Tensor, item_PW: Tensor) -> Tensor | None:
        """Load balance: each prediction should use few pairs, and all predictions together all of them."""
        if not self._balance or not len(query_PQ):
            return None
        share_PM = self._mixed(query_PQ, item_PW)[1].float()
        return self._balance * (_entropy(share_PM).mean() - _entropy(share_PM.mean(0)))

    def _parts(self, x_N: Tensor, n: int) -> Tensor:
        """(N, n * C) n vectors of length 1, side by side."""
        return functional.normalize(x_N.view(*x_N.shape[:-1], n, self._width), dim=-1).flatten(-2)

    def _mixed(self, query: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """The score of each pair of a query (..., A * C + M) and an item, broadcast; and the shares (..., M)."""
        n_query, n_item = self._n_query * self._width, self._n_item * self._width
        query_AC = query[..., :n_query].unflatten(-1, (self._n_query, self._width))  # type: ignore[no-untyped-call]
        item_BC = item[..., :n_item].unflatten(-1, (self._n_item, self._width))  # type: ignore[no-untyped-call]
        logit_M = (query_AC @ item_BC.transpose(-1, -2)).flatten(-2) / self._temperature
        gate_M = query[..., n_query:] * item[..., n_item:] + self.logit_gate(logit_M)
        share_M = self.gate_dropout(functional.silu(gate_M).softmax(-1))
        share_M = share_M / share_M.sum(-1, keepdim=True).clamp(min=1e-6)
        return cast(Tensor, (share_M * logit_M).sum(-1)), share_M


class Head(CatalogueSoftmax):
    """A mixture of logits under a softmax over the catalogue; the best items are found by scoring all."""

    def __init__(
        self,
        design: Design,
        *,
        copy_head: bool = True,
        n_query: int = 8,
        n_item: int = 4,
        width: int = 32,
        hidden: int = 64,
        temperature: float = 0.05,
        gate_dropout: float = 0.2,
        balance: float = 0.001,
    ) -> None:
        """Build the head.

        Args:
            design: what it is built for.
            copy_head: whether what follows a request may be copied from the user's own history.
            n_query: vectors of a state.
            n_item: vectors of an item.
            width: of these vectors.
            hidden: width of the hidden layers of projections and gate.
            temperature: what products are divided by.
            gate_dropout: share of the gate hidden in training.
            balance: weight of the loss that balances the gate.
        """
        if min(n_query, n_item, width, hidden) < 1 or temperature <= 0:
            raise ConfigError(
                "head_options n_query, n_item, width, hidden and temperature of mixture_of_logits must be positive"
            )
        similarity = MixtureOfLogits(
            d_model=design.config.model.d_model,
            n_query=n_query,
            n_item=n_item,
            width=width,
            hidden=hidden,
            temperature=temperature,
            gate_dropout=gate_dropout,
            balance=balance,
        )
        super().__init__(design.config, similarity, copy_head=copy_head)


def _entropy(share: Tensor) -> Tensor:
    """In nats, over the last axis."""
    return -(share * share.clamp(min=1e-9).log()).sum(-1)
