"""Who sees whom is one rule; every padded form of it says the same."""

import numpy as np
import pytest
import torch

from lrm.model.attention import pad
from lrm.model.onnx_runtime import _places
from lrm.tokens.layout import Layout, lay_out
from lrm.tokens.segments import PromptShape
from lrm.tokens.visibility import fixed_form, rule

ONE = PromptShape(per_event=1, per_query=1, per_candidate=1, max_history=99)
SHAPES = {
    "one token each": ONE,
    "many tokens each": ONE._replace(per_event=2, per_query=4, per_candidate=3),
    "memory": ONE._replace(per_query=2, older_events=6, memory_tokens=3),
    "no query": ONE._replace(per_query=0),
    "the latest event read again": ONE._replace(per_event=2, per_query=3, reread_events=1),
}


def layout_of(shape: PromptShape, *, n_requests: tuple[int, ...]) -> Layout:
    """Users with 5, 1 and 7 events; with one request each, it sees all of them; else requests stand anywhere."""
    n_events, asked = np.array([5, 1, 7]), np.array(n_requests)
    start, total = np.cumsum(n_events) - n_events, int(asked.sum())
    visible = np.arange(total) % (np.repeat(n_events, asked) + 1)
    return lay_out(
        shape,
        n_events=n_events,
        n_memory=np.array([1, 0, 1]) * shape.memory_tokens,
        n_requests=asked,
        n_candidates=np.arange(total),
        now_R=np.repeat(start, asked) + (n_events if n_requests == (1, 1, 1) else visible),
        start_G=start,
        row_E=np.arange(n_events.sum()),
        event_time_E=np.arange(n_events.sum(), dtype=float),
        request_time_R=np.arange(total, dtype=float),
    )


def by_rule(layout: Layout) -> torch.Tensor:
    """(N, N) whether a token sees another."""
    rows = torch.arange(len(layout.position_N))
    return rule(layout, n_all=len(rows))(rows.unsqueeze(1), rows)


def padded_rows(layout: Layout) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Flat row of the token at each place of the padded prefix and suffix, -1 where none stands; and history tokens."""
    n_history, n_segments = len(layout.history_slot_H), layout.bias_GSU.shape[0]
    prefix_N = torch.arange(len(layout.prefix_slot_N))
    suffix_N = torch.arange(n_history, len(layout.position_N))
    prefix_GU = pad(prefix_N + 1, layout.prefix_slot_N, (n_segments, layout.bias_GSU.shape[2])) - 1
    return prefix_GU, pad(suffix_N + 1, layout.suffix_slot_N, layout.suffix_shape) - 1, n_history


def spread(sees_GQK: torch.Tensor, query_GQ: torch.Tensor, key_GK: torch.Tensor, into_NN: torch.Tensor) -> None:
    """Write a padded form into the flat one."""
    for sees_QK, query_Q, key_K in zip(sees_GQK, query_GQ, key_GK, strict=True):
        both = (query_Q >= 0).unsqueeze(1) & (key_K >= 0)
        q, k = query_Q.unsqueeze(1).expand_as(both)[both], key_K.expand_as(both)[both]
        into_NN[q, k] |= sees_QK[both]


@pytest.mark.parametrize("n_requests", [(2, 0, 3), (1, 1, 1), (0, 0, 0)], ids=["several", "one each", "none"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_padded_form_is_the_rule(shape, n_requests):
    layout = layout_of(shape, n_requests=n_requests)
    prefix_GU, suffix_GS, _ = padded_rows(layout)
    sees_NN = torch.zeros(len(layout.position_N), len(layout.position_N), dtype=torch.bool)
    longest = layout.history_shape[1]
    history_GT = prefix_GU[:, :longest]
    causal_GTT = torch.ones(longest, longest).tril().bool().expand(len(history_GT), -1, -1)
    spread(causal_GTT, history_GT, history_GT, sees_NN)
    spread(layout.bias_GSU == 0, suffix_GS, prefix_GU, sees_NN)
    candidate_C = torch.arange(len(layout.prefix_slot_N), len(layout.position_N)).view(-1, shape.per_candidate)
    spread(torch.ones(len(candidate_C), *candidate_C.shape[1:] * 2).bool(), candidate_C, candidate_C, sees_NN)
    assert torch.equal(sees_NN, by_rule(layout))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_form_of_fixed_size_is_the_rule(shape):
    layout = layout_of(shape, n_requests=(1, 1, 1))
    prefix_GU, suffix_GS, n_history = padded_rows(layout)
    longest = layout.history_shape[1]
    shown_N = pad(layout.shown_N, layout.suffix_slot_N, layout.suffix_shape).flatten()
    sees_GSV = fixed_form(shown_N, shape, n_history=longest, n_suffix=layout.suffix_shape[1])
    sees_NN = torch.zeros(len(layout.position_N), len(layout.position_N), dtype=torch.bool)
    spread(sees_GSV, suffix_GS, torch.cat([prefix_GU[:, :longest], suffix_GS], dim=1), sees_NN)
    assert torch.equal(sees_NN[n_history:], by_rule(layout)[n_history:])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_form_of_onnx_is_the_rule(shape):
    layout = layout_of(shape, n_requests=(1, 1, 1))
    prefix_GU, suffix_GS, n_history = padded_rows(layout)
    rows, bias_GSV = _places(layout, len(layout.position_N) - n_history, n_history)
    seen_GSV = torch.from_numpy(bias_GSV) == 0
    sees_NN = torch.zeros(len(layout.position_N), len(layout.position_N), dtype=torch.bool)
    spread(seen_GSV[..., : prefix_GU.shape[1]], suffix_GS, prefix_GU, sees_NN)
    own_GSK = torch.from_numpy(rows["own_row"]) + n_history
    spread(
        seen_GSV[..., prefix_GU.shape[1] :].flatten(0, 1).unsqueeze(1),
        suffix_GS.view(-1, 1),
        own_GSK.flatten(0, 1),
        sees_NN,
    )
    assert torch.equal(sees_NN[n_history:], by_rule(layout)[n_history:])


def test_a_request_that_reads_its_latest_event_again_does_not_see_it_in_the_history():
    layout = lay_out(
        ONE._replace(reread_events=1),
        n_events=np.array([2]),
        n_memory=np.array([0]),
        n_requests=np.array([1]),
        n_candidates=np.array([1]),
        now_R=np.array([2]),
        start_G=np.array([0]),
        row_E=np.arange(2),
        event_time_E=np.zeros(2),
        request_time_R=np.zeros(1),
    )
    assert ["".join(".x"[int(sees)] for sees in row) for row in by_rule(layout)] == [
        "x...",  # the first event
        "xx..",  # the second
        "x.x.",  # the second again, of the request
        "x.xx",  # its candidate
    ]
    assert layout.position_N.tolist() == [0, 1, 1, 2]
