"""Answers in two passes: a history is decoded once, and any number of requests and candidates are decoded over it.

A request and its candidates take from the history only what the layers kept of it. So keeping that is exact: the scores
are those of `lrm.model.scoring`, up to the rounding of other batch shapes. The query is not kept: its signals move with
the clock, and it is a handful of tokens. What a layer keeps is its own matter: here it is sliced and joined by history
token, whatever it is.

Shape suffixes: U users, H history tokens (memory first), T events, L layers, R requests, C candidates, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.model.blocks import Kept
from lrm.model.decoder import Decode
from lrm.model.recommender import Recommender
from lrm.model.states import States
from lrm.tokens.corpus import Corpus
from lrm.tokens.layout import Layout, lay_out
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import Segments
from lrm.tokens.signals import SignalTensors


class Prefix(NamedTuple):
    """One user's decoded history: the latest `max_history` events, and memory tokens for those before."""

    kept_LH: Kept
    """What the layers keep of each history token: tensors (L, H, ...)."""
    event_TD: Tensor
    """The state after each event."""
    row_T: np.ndarray
    """Catalogue row of each event, -1 where the item is not in it."""
    time_T: np.ndarray
    """Time of each event, float64 seconds since 1970."""
    n_memory: int
    latest_KD: Tensor | None = None
    """Tokens of the latest event, before the decoder, where requests read it again."""

    @property
    def n_bytes(self) -> int:
        """Return the memory held."""
        tensors = [*self.kept_LH, self.event_TD, *([] if self.latest_KD is None else [self.latest_KD])]
        held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        return held + self.row_T.nbytes + self.time_T.nbytes


class Suffix(NamedTuple):
    """What requests and candidates bring, encoded."""

    query_R: SignalTensors
    candidate_C: SignalTensors
    identity_C: Tensor
    n_candidates_R: np.ndarray
    """Candidates of each request; they stand request by request."""
    time_R: np.ndarray
    """Time of each request, float64 seconds since 1970."""


@torch.inference_mode()
def prefill(recommender: Recommender, corpus: Corpus, requests: np.ndarray | None = None) -> list[Prefix]:
    """Decode the history of every user of a corpus, as a request after the last event sees it.

    Args:
        recommender: the model.
        corpus: whose events are read.
        requests: rows of requests; where given, the history is decoded as each of them sees it, and U counts them.
    """
    shape = recommender.prompt_shape()
    if requests is None:
        first_U, end_U = corpus.user_offset_U[:-1], corpus.user_offset_U[1:]
    else:
        first_U = corpus.user_start_R[requests]
        end_U = first_U + corpus.visible_R[requests]
    start_U = np.maximum(first_U, end_U - shape.max_history)
    nothing = np.zeros(len(end_U) + 1, dtype=np.int64)
    batch = build_batch(corpus, Segments(start_U, end_U, end_U, nothing, nothing[:0]), shape)
    prompt = recommender.tokens(batch)
    states_HD, kept = recommender.decoder(torch.cat([prompt.memory_ND, prompt.event_ND]), batch.layout)
    all_memory = len(prompt.memory_ND)
    event_ED = states_HD[all_memory:][shape.per_event - 1 :: shape.per_event]
    kept_LH = [torch.stack(of_layers) for of_layers in zip(*kept, strict=True)]
    n_events = end_U - start_U
    has_older = (start_U > first_U) & (shape.older_events > 0)
    n_memory = np.where(has_older, shape.memory_tokens, 0)
    counts = zip(np.cumsum(n_memory) - n_memory, n_memory, np.cumsum(n_events) - n_events, n_events, strict=True)
    prefixes = []
    for memory, m, event, n in counts:
        first, past = all_memory + event * shape.per_event, all_memory + (event + n) * shape.per_event
        mine_H = torch.cat([torch.arange(memory, memory + m), torch.arange(first, past)])
        events = batch.events[event : event + n]
        prefixes.append(
            Prefix(
                tuple(tensor[:, mine_H] for tensor in kept_LH),
                event_ED[event : event + n].clone(),
                corpus.event_row_E[events],
                corpus.event_time_E[events],
                int(m),
                _latest_tokens(recommender, prompt.event_ND[: past - all_memory], n) if shape.reread_events else None,
            )
        )
    return prefixes


def _latest_tokens(recommender: Recommender, event_ND: Tensor, n_events: int) -> Tensor:
    """Return (K, D): the tokens of a user's latest event, which end `event_ND`."""
    if not n_events:
        return recommender.no_event()[0]
    return event_ND[-recommender.factory.history.n_tokens :].clone()


@torch.inference_mode()
def decode_over(
    recommender: Recommender, prefixes: Sequence[Prefix], suffix: Suffix, decode: Decode | None = None
) -> tuple[States, Layout]:
    """Decode one request over each prefix, and its candidates; request r stands over prefix r.

    Args:
        recommender: the model.
        prefixes: one for each request.
        suffix: the requests and their candidates.
        decode: runs in place of the recommender's decoder.
    """
    shape = recommender.prompt_shape()
    n_events = np.array([len(prefix.row_T) for prefix in prefixes], dtype=np.int64)
    layout = lay_out(
        shape,
        n_events=n_events,
        n_memory=np.array([prefix.n_memory for prefix in prefixes], dtype=np.int64),
        n_requests=np.ones(len(prefixes), dtype=np.int64),
        n_candidates=suffix.n_candidates_R,
        now_R=n_events,
        start_G=np.zeros(len(prefixes), dtype=np.int64),
        row_E=np.concatenate([prefix.row_T for prefix in prefixes]),
        event_time_E=np.concatenate([prefix.time_T for prefix in prefixes]),
        request_time_R=suffix.time_R,
    )
    factory = recommender.factory
    context = factory.request_context(suffix.query_R, layout.candidate_request)
    query_RKD = factory.query_tokens(suffix.query_R, shape.soft_query, context.embedded_RMW)
    latest = [prefix.latest_KD for prefix in prefixes if prefix.latest_KD is not None]
    if latest:
        query_RKD = torch.cat([torch.stack(latest), query_RKD], dim=1)
    query_ND = query_RKD.flatten(0, 1)
    candidate_NKD = factory.candidate_tokens(suffix.identity_C, suffix.candidate_C, context, shape.per_candidate)
    past = [
        tuple(
            _joined([tensor_LH[layer] for tensor_LH in of_prefixes], prefixes)
            for of_prefixes in zip(*(prefix.kept_LH for prefix in prefixes), strict=True)
        )
        for layer in range(len(recommender.decoder.blocks))
    ]
    x_ND = torch.cat([query_ND, candidate_NKD.flatten(0, 1)])
    states_ND = recommender.decoder(x_ND, layout, past)[0] if decode is None else decode(x_ND, layout, past)
    event_ED = torch.cat([prefix.event_TD for prefix in prefixes])
    return recommender.states(event_ED, states_ND[: len(query_ND)], states_ND[len(query_ND) :], layout), layout


def _joined(history: Sequence[Tensor], prefixes: Sequence[Prefix]) -> Tensor:
    """Return the history tokens of several users in the order of a layout: all memory tokens, then all events."""
    memory = [x[: prefix.n_memory] for x, prefix in zip(history, prefixes, strict=True) if prefix.n_memory]
    return torch.cat([*memory, *(x[prefix.n_memory :] for x, prefix in zip(history, prefixes, strict=True))])
