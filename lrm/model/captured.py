"""The decoder over kept histories on a GPU: whole passes captured as CUDA graphs, one for each of a few sizes.

A pass is a hundred short kernels, and to launch each of them takes longer than to run it. A captured graph launches all
of them at once, for one shape: what is asked is padded to the least size that holds it. What none holds, the decoder
does itself, as it would have done without.

Shape suffixes: N flat tokens, G requests, each over one history, T history tokens, S query and candidate tokens of a
request, V = T + S, L layers, J key-value heads, P heads that share one, Z head width, D model width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from lrm.model.attention import Attention, KeysValues, rotations
from lrm.model.decoder import Block, Decoder
from lrm.tokens.prompt import Layout
from lrm.tokens.segments import PromptShape

WARM_UPS = 3
"""Passes before a capture, in which libraries choose their kernels."""


class Size(NamedTuple):
    """How much one captured pass holds."""

    requests: int
    history: int
    """Tokens of the longest history."""
    suffix: int
    """Query and candidate tokens of the request with most candidates."""

    @property
    def work(self) -> int:
        """Pairs of tokens that attention looks at."""
        return self.requests * self.suffix * (self.history + self.suffix)


def history_bytes(decoder: Decoder, size: Size) -> int:
    """Memory of the histories that a pass of this size holds."""
    attention = cast(Block, decoder.blocks[0]).attention
    return size.requests * size.history * len(decoder.blocks) * 2 * attention.n_kv_heads * attention.width * 4


class Captured:
    """A decoder whose passes over kept histories are replayed; one thread at a time."""

    def __init__(self, decoder: Decoder, sizes: Sequence[Size], shape: PromptShape) -> None:
        """Capture a pass of each size; on a processor nothing is captured, and the padded passes run as they are.

        Args:
            decoder: what happens to its weights later counts, as long as they stay where they are.
            sizes: what is held; memory is that of the largest, whose graph comes first so that others fit in its place.
            shape: tokens of a request's query and of a candidate.
        """
        self._decoder, self._memory, self._lock = decoder, _Memory(decoder, sizes), threading.Lock()
        pool = torch.cuda.graph_pool_handle() if _on_gpu(decoder) else None
        descending = sorted(sizes, key=lambda size: -size.work)
        self._passes = [_Pass(decoder, size, shape, self._memory, pool) for size in descending][::-1]

    def __call__(self, x_ND: Tensor, layout: Layout, past: Sequence[KeysValues]) -> Tensor:
        """(N, D) query and candidate tokens to (N, D) states, as the decoder gives them."""
        (n_segments, longest), widest = layout.history_shape, layout.suffix_shape[1]
        one_each = len(layout.segment_R) == n_segments
        for held in self._passes if len(x_ND) and one_each else ():
            if held.size.requests >= n_segments and held.size.history >= longest and held.size.suffix >= widest:
                with self._lock:
                    states_ND = held(x_ND, layout, past)
                    if states_ND.isfinite().all():
                        return states_ND
                    # What is no number spreads through weights of zero: from here it must not, and nothing may be left.
                    self._memory.clear()
                break
        states_ND = cast(Tensor, self._decoder(x_ND, layout, past)[0])
        return states_ND


class _Memory:
    """Tensors that all sizes share, each as long as the largest size wants it."""

    def __init__(self, decoder: Decoder, sizes: Sequence[Size]) -> None:
        attention, d_model = cast(Block, decoder.blocks[0]).attention, len(decoder.norm.weight)
        n_suffix = max((size.requests * size.suffix for size in sizes), default=0)
        n_history = max((size.requests * size.history for size in sizes), default=0)
        device = decoder.norm.weight.device
        self.x_ND = torch.zeros(n_suffix, d_model, device=device)
        self.position_N, self.shown_N = torch.zeros(2, n_suffix, dtype=torch.long, device=device)
        kept = [torch.zeros(2, n_history, attention.n_kv_heads, attention.width, device=device) for _ in decoder.blocks]
        self.past = [KeysValues(*of_layer) for of_layer in kept]

    def clear(self) -> None:
        """Forget what the last passes were asked."""
        for tensor in (self.x_ND, *(each for of_layer in self.past for each in of_layer)):
            tensor.zero_()


class _Pass:
    """One size: its part of the memory, and the work that is replayed."""

    def __init__(self, decoder: Decoder, size: Size, shape: PromptShape, memory: _Memory, pool: Any) -> None:
        self.size, self._decoder = size, decoder
        n_suffix, n_history = size.requests * size.suffix, size.requests * size.history
        self._x_ND, self._position_N = memory.x_ND[:n_suffix], memory.position_N[:n_suffix]
        self._shown_N = memory.shown_N[:n_suffix]
        self._past = [KeysValues(keys[:n_history], values[:n_history]) for keys, values in memory.past]
        place_S = torch.arange(size.suffix, device=memory.x_ND.device) - shape.per_query
        candidate_S = place_S.div(shape.per_candidate, rounding_mode="floor")
        self._sees_own_SS = (place_S < 0) | (candidate_S.unsqueeze(1) == candidate_S)
        self._replay = _captured(self._states, pool) if _on_gpu(decoder) else torch.no_grad()(self._states)

    def __call__(self, x_ND: Tensor, layout: Layout, past: Sequence[KeysValues]) -> Tensor:
        history_H = _moved(layout.history_slot_H, layout.history_shape[1], self.size.history)
        suffix_N = _moved(layout.suffix_slot_N, layout.suffix_shape[1], self.size.suffix)
        self._x_ND.index_copy_(0, suffix_N, x_ND)
        self._position_N.index_copy_(0, suffix_N, layout.position_N[-len(x_ND) :])
        self._shown_N.index_copy_(0, suffix_N, layout.shown_N)
        for mine, theirs in zip(self._past, past, strict=True):
            mine.keys_HJZ.index_copy_(0, history_H, theirs.keys_HJZ)
            mine.values_HJZ.index_copy_(0, history_H, theirs.values_HJZ)
        return self._replay().index_select(0, suffix_N)

    def _states(self) -> Tensor:
        """(G * S, D): what stands at places that nothing was copied to is of no meaning, and seen by none that has."""
        decoder, (n_requests, n_history, n_suffix) = self._decoder, self.size
        rotation_NZ = rotations(self._position_N, width=decoder.head_width)
        place_T = torch.arange(n_history, device=self._x_ND.device)
        sees_past_GST = (place_T < self._shown_N.unsqueeze(1)).view(n_requests, n_suffix, n_history)
        sees_GSV = torch.cat([sees_past_GST, self._sees_own_SS.expand(n_requests, -1, -1)], dim=-1)
        x_ND = self._x_ND
        for block, past in zip(cast(Sequence[Block], decoder.blocks), self._past, strict=True):
            x_ND = x_ND + self._attended(block.attention_norm(x_ND), block.attention, rotation_NZ, past, sees_GSV)
            x_ND = x_ND + block.ffn(block.ffn_norm(x_ND))
        states_ND: Tensor = decoder.norm(x_ND)
        return states_ND

    def _attended(
        self, x_ND: Tensor, attention: Attention, rotation_NZ: Tensor, past: KeysValues, sees_GSV: Tensor
    ) -> Tensor:
        n_requests, n_kv_heads, width = self.size.requests, attention.n_kv_heads, attention.width
        shared = attention.n_heads // n_kv_heads
        q_NHZ, k_NJZ, v_NJZ = attention.heads(x_ND, rotation_NZ)
        k_GJVZ, v_GJVZ = (
            torch.cat([one.view(n_requests, -1, n_kv_heads, width) for one in both], dim=1).transpose(1, 2)
            for both in ((past.keys_HJZ, k_NJZ), (past.values_HJZ, v_NJZ))
        )
        # Heads that share their keys stand as so many more places: kernels with a mask want a key head for each head.
        q_GSJPZ = q_NHZ.view(n_requests, -1, n_kv_heads, shared, width)
        q_GJLZ = q_GSJPZ.permute(0, 2, 3, 1, 4).flatten(2, 3)
        sees_GJLV = sees_GSV.repeat(1, shared, 1).unsqueeze(1)
        mixed_GJLZ = functional.scaled_dot_product_attention(q_GJLZ, k_GJVZ, v_GJVZ, attn_mask=sees_GJLV)
        mixed_GJPSZ = mixed_GJLZ.view(n_requests, n_kv_heads, shared, -1, width)
        mixed_ND: Tensor = attention.out(mixed_GJPSZ.permute(0, 3, 1, 2, 4).reshape(len(x_ND), -1))
        return mixed_ND


@torch.no_grad()
def _captured(work: Callable[[], Tensor], pool: Any) -> Callable[[], Tensor]:
    """Run `work` until its kernels are chosen, capture it, and give what replays it."""
    for _ in range(WARM_UPS):
        work()
    graph = torch.cuda.CUDAGraph()
    # The release in service answers meanwhile, from another thread: only this one is kept from what a capture forbids.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        states_ND = work()

    def replay() -> Tensor:
        graph.replay()
        return states_ND

    return replay


def _moved(slot_N: Tensor, width: int, to: int) -> Tensor:
    """Places in a padded (G, `width`), in one that is `to` wide."""
    return slot_N // width * to + slot_N % width


def _on_gpu(decoder: Decoder) -> bool:
    return decoder.norm.weight.device.type == "cuda"
