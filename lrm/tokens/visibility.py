"""Who sees whom in a prompt: the rule as a function of two tokens, and forms of it for kernels of other shapes.

`lrm.tokens.prompt` says the rule in words. The padded form stands in a layout (`Layout.bias_GSU`, and causal order over
the history); a test holds every form to the rule.

Shape suffixes: N flat tokens, H flat history tokens, G requests, T history tokens, S query and candidate tokens of a
request, V = T + S.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lrm.tokens.layout import Layout
from lrm.tokens.segments import PromptShape

FAR = 2**30
"""The place in the history of a token that is not of the history."""
Rule = Callable[[Tensor, Tensor], Tensor]
"""Whether token `q` sees token `k`; both are flat rows."""


def rule(layout: Layout, *, n_all: int) -> Rule:
    """Return the rule for the tokens of a layout.

    Every token has a number of its own kind, and sees all tokens of that number: the tokens of a candidate share one,
    any other token is alone with its own. So every token sees itself, and a filler sees nothing else.

    Args:
        layout: of all tokens.
        n_all: tokens with the fillers after the last one.
    """
    history_H, request_N = layout.history_slot_H, layout.request_N
    n_history, n_query = len(history_H), len(layout.prefix_slot_N) - len(history_H)
    n_prefix, n_tokens = n_history + n_query, n_history + len(request_N)
    place_H = history_H % layout.history_shape[1]
    flat_N = torch.arange(n_all, device=history_H.device)
    candidate_N = (flat_N[n_prefix:n_tokens] - n_prefix) // layout.shape.per_candidate

    def full(*parts: Tensor, rest: int) -> Tensor:
        flat = torch.cat(parts)
        return functional.pad(flat, (0, n_all - len(flat)), value=rest).int()

    segment_N = full(history_H // layout.history_shape[1], layout.segment_R[request_N], rest=-1)
    place_N = full(place_H, rest=FAR)
    horizon_N = full(place_H + 1, layout.shown_N, rest=0)
    asks_N = full(torch.full_like(history_H, -1), request_N, rest=-1)
    told_N = full(torch.full_like(history_H, -2), request_N[:n_query], rest=-2)
    own_N = torch.cat([flat_N[:n_prefix], n_all + candidate_N, flat_N[n_tokens:]]).int()

    def sees(q: Tensor, k: Tensor) -> Tensor:
        history = (segment_N[q] == segment_N[k]) & (place_N[k] < horizon_N[q])
        return history | (asks_N[q] == told_N[k]) | (own_N[q] == own_N[k])

    return sees


def fixed_form(shown_N: Tensor, shape: PromptShape, *, n_history: int, n_suffix: int) -> Tensor:
    """Return (G, S, V): whether a token sees a history token of its request, then a token of the same request.

    Args:
        shown_N: (G * S,) history tokens that each token sees.
        shape: tokens of a query and of a candidate.
        n_history: T.
        n_suffix: S; the query tokens first, then candidate after candidate.
    """
    place_S = torch.arange(n_suffix, device=shown_N.device) - shape.per_query
    candidate_S = place_S.div(shape.per_candidate, rounding_mode="floor")
    sees_own_SS = (place_S < 0) | (candidate_S.unsqueeze(1) == candidate_S)
    sees_past_NT = torch.arange(n_history, device=shown_N.device) < shown_N.unsqueeze(1)
    sees_past_GST = sees_past_NT.view(-1, n_suffix, n_history)
    return torch.cat([sees_past_GST, sees_own_SS.expand(len(sees_past_GST), -1, -1)], dim=-1)
