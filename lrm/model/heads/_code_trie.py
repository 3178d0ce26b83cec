"""The codes of a catalogue as a tree, and a beam search that never leaves it.

A node of depth l is a prefix of l codes. Items are sorted by their codes, so that those below a node are a range; how
many of a range a request may be shown is a difference of two running counts. A node is entered only where that is not
zero. So every beam leads to an item that may be shown, and `width` beams end in `width` items, or in all there are.

Shape suffixes: V items of the tree, L codes of an item, R requests, B beams, C children of a node, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]
"""From the codes so far (R, B, l) to log-probabilities (R, B, K) of the next code."""


class Level(NamedTuple):
    """The nodes of one depth, in the order of the items below them."""

    code_N: Tensor
    """Last code of the prefix."""
    first_N: Tensor
    """Place of the first item below."""
    past_N: Tensor
    """Place past the last item below."""
    child_N: Tensor
    """Place of the first child in the next level; a node more than there are, so that differences count children."""


class Trie(NamedTuple):
    """A tree of codes."""

    levels: tuple[Level, ...]
    """Of depth 0 (the root) to L (the items)."""
    row_V: np.ndarray
    """Catalogue row of each item, in the order of the tree."""


def build_trie(code_VL: np.ndarray, row_V: np.ndarray) -> Trie:
    """Build the tree.

    Args:
        code_VL: the codes of items, no two alike.
        row_V: their catalogue rows.
    """
    order = np.lexsort(code_VL.T[::-1])
    code_VL, row_V = code_VL[order], row_V[order]
    n_items, n_levels = code_VL.shape
    is_new_VL = np.ones((n_items, n_levels + 1), dtype=bool)
    is_new_VL[1:, 0] = False
    is_new_VL[1:, 1:] = np.logical_or.accumulate(code_VL[1:] != code_VL[:-1], axis=1)
    starts = [np.flatnonzero(is_new_VL[:, depth]) for depth in range(n_levels + 1)]
    levels = []
    for depth, first in enumerate(starts):
        past = np.append(first[1:], n_items)[: len(first)]
        below = starts[min(depth + 1, n_levels)]
        child = np.append(np.searchsorted(below, first), len(below))
        code = code_VL[first, depth - 1] if depth else np.zeros(len(first), dtype=np.int64)
        levels.append(Level(*(torch.as_tensor(values) for values in (code, first, past, child))))
    return Trie(tuple(levels), row_V)


def beam_search(
    step: Step, trie: Trie, *, n_requests: int, width: int, is_shown_RV: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest items of each request, among those that it may be shown.

    Args:
        step: the model.
        trie: of at least one item.
        n_requests: R.
        width: beams of a request.
        is_shown_RV: for items in the order of the tree, whether a request may be shown them; None: all may be.

    Returns:
        (R, B) catalogue rows, and their log-probabilities; minus infinity where a request has fewer items.
    """
    shown_RV = None
    if is_shown_RV is not None:
        counts = np.concatenate([np.zeros((n_requests, 1), dtype=np.int64), np.cumsum(is_shown_RV, axis=1)], axis=1)
        shown_RV = torch.as_tensor(counts)
    node_RB = torch.zeros(n_requests, 1, dtype=torch.int64)
    score_RB = torch.zeros(n_requests, 1)
    code_RBL = torch.zeros(n_requests, 1, 0, dtype=torch.int64)
    for above, below in zip(trie.levels[:-1], trie.levels[1:], strict=True):
        first_RB, past_RB = above.child_N[node_RB], above.child_N[node_RB + 1]
        n_children = int((past_RB - first_RB).max())
        child_RBC = first_RB.unsqueeze(-1) + torch.arange(n_children)
        is_child_RBC = child_RBC < past_RB.unsqueeze(-1)
        child_RBC = child_RBC.clamp(max=len(below.code_N) - 1)
        if shown_RV is not None:
            flat_RN = child_RBC.flatten(1)
            n_shown_RN = shown_RV.gather(1, below.past_N[flat_RN]) - shown_RV.gather(1, below.first_N[flat_RN])
            is_child_RBC = is_child_RBC & (n_shown_RN > 0).view_as(is_child_RBC)
        log_p_RBC = step(code_RBL).gather(-1, below.code_N[child_RBC])
        total_RBC = (score_RB.unsqueeze(-1) + log_p_RBC).masked_fill(~is_child_RBC, float("-inf"))
        score_RB, place_RB = total_RBC.flatten(1).topk(min(width, total_RBC[0].numel()))
        node_RB = child_RBC.flatten(1).gather(1, place_RB)
        before_RBL = code_RBL.gather(1, (place_RB // n_children).unsqueeze(-1).expand(-1, -1, code_RBL.shape[-1]))
        code_RBL = torch.cat([before_RBL, below.code_N[node_RB].unsqueeze(-1)], dim=-1)
    return trie.row_V[trie.levels[-1].first_N[node_RB].cpu().numpy()], score_RB.cpu().numpy()
