"""Cross-entropy over a whole catalogue without ever holding its logits: a hundred predictions or so at a time.

Each chunk's logits become probabilities, then gradients, while they are still in the processor's cache; what remains
are two matrices the size of the inputs. (The same idea as Cut Your Losses, 2411.09009, for a processor's caches.)

Shape suffixes: P predictions, D model width, V items of the catalogue, C predictions of a chunk, S items seen before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**28}
"""Logits at a time: what a core's cache holds; what keeps a GPU busy."""


class Seen(NamedTuple):
    """The items that each prediction's history holds, each once: those of prediction p lie in `offset[p:p + 2]`."""

    offset_P: Tensor
    """(P + 1,)"""
    class_S: Tensor
    """Row of the item."""
    row_S: Tensor
    """Prediction."""


class _MeanNll(torch.autograd.Function):
    """Mean negative log-likelihood; all gradients are made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, state_PD: Tensor, item_VD: Tensor, class_P: Tensor, seen: Seen | None, bias: Tensor | None
    ) -> Tensor:
        """See `mean_nll`."""
        n_items, share = len(item_VD), 1.0 / max(1, len(state_PD))
        total, by_bias = (state_PD.new_zeros((), dtype=torch.float64) for _ in range(2))
        by_state_PD, by_item_VD = torch.empty_like(state_PD), torch.zeros_like(item_VD, dtype=torch.float32)
        step = max(32, CHUNK_BYTES[state_PD.device.type] // (state_PD.element_size() * n_items))
        for first in range(0, len(state_PD), step):
            state_CD, class_C1 = state_PD[first : first + step], class_P[first : first + step].unsqueeze(1)
            logit_CV = state_CD @ item_VD.T
            if seen is not None and bias is not None:
                held = slice(int(seen.offset_P[first]), int(seen.offset_P[first + len(state_CD)]))
                place_S = (seen.row_S[held] - first) * n_items + seen.class_S[held]
                logit_CV.put_(place_S, logit_CV.take(place_S) + bias.to(logit_CV.dtype))
            p_CV = logit_CV.softmax(-1)
            p_C1 = p_CV.gather(1, class_C1)
            total -= p_C1.double().clamp(min=1e-30).log().sum()
            p_CV.scatter_(1, class_C1, p_C1 - 1)
            if seen is not None:
                by_bias += p_CV.take(place_S).sum(dtype=torch.float32)
            by_state_PD[first : first + step] = p_CV @ item_VD
            by_item_VD += p_CV.T @ state_CD
        ctx.has_bias = bias is not None
        ctx.save_for_backward(by_state_PD.mul_(share), by_item_VD.mul_(share).to(item_VD.dtype), by_bias.mul_(share))
        return (total * share).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, Tensor | None]:
        """Scale the gradients."""
        by_state_PD, by_item_VD, by_bias = ctx.saved_tensors
        return by_state_PD * grad, by_item_VD * grad, None, None, by_bias.float() * grad if ctx.has_bias else None


def mean_nll(
    state_PD: Tensor, item_VD: Tensor, class_P: Tensor, *, seen: Seen | None = None, bias: Tensor | None = None
) -> Tensor:
    """Mean negative log-likelihood, in nats, of each state's item under a softmax over the catalogue; 0 without states.

    Args:
        state_PD: (P, D) states.
        item_VD: (V, D) vectors of the whole catalogue, in the same precision; products and gradients stay in it.
        class_P: (P,) row of each state's item.
        seen: the items of each prediction's history, given with `bias`.
        bias: one number that is added to the logits of the items seen.
    """
    loss: Tensor = _MeanNll.apply(state_PD, item_VD, class_P, seen, bias)  # type: ignore[no-untyped-call]
    return loss
