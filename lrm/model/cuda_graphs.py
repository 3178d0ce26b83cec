"""The decoder over kept histories on a GPU: whole passes captured as CUDA graphs, one for each of a few sizes.

A pass is a hundred short kernels, and to launch each of them takes longer than to run it. A captured graph launches all
of them at once, for one shape. A request is padded to the least size that holds it. Where no size does, the decoder
runs as it would without graphs.

Shape suffixes: N flat tokens, G requests, each over one history, T history tokens, S query and candidate tokens of a
request, V = T + S, D model width.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from lrm.model.blocks import FixedSizeBlock, Kept
from lrm.model.decoder import Decoder
from lrm.tokens.layout import Layout
from lrm.tokens.segments import PromptShape
from lrm.tokens.visibility import fixed_form

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
        """Return the pairs of tokens that attention looks at."""
        return self.requests * self.suffix * (self.history + self.suffix)


def history_bytes(decoder: Decoder, size: Size) -> int:
    """Return the bytes of the histories that a pass of this size holds."""
    per_token = sum(math.prod(shape) for block in _layers(decoder) for shape in block.kept_shapes())
    return size.requests * size.history * per_token * 4


class CudaGraphs:
    """A decoder whose passes over kept histories are replayed; one thread at a time."""

    def __init__(self, decoder: Decoder, sizes: Sequence[Size], shape: PromptShape) -> None:
        """Capture a pass of each size; on a processor nothing is captured, and the padded passes run as they are.

        Args:
            decoder: of blocks that decode in fixed shapes. Later changes of its weights count, as long as the weights
                stay where they are.
            sizes: what is captured; memory is that of the largest, whose graph comes first so that others fit in its
                place.
            shape: tokens of a request's query and of a candidate.
        """
        self._decoder, self._memory, self._lock = decoder, _Memory(decoder, sizes), threading.Lock()
        pool = torch.cuda.graph_pool_handle() if _on_gpu(decoder) else None
        descending = sorted(sizes, key=lambda size: -size.work)
        self._passes = [_Pass(decoder, size, shape, self._memory, pool) for size in descending][::-1]

    def __call__(self, x_ND: Tensor, layout: Layout, past: Sequence[Kept]) -> Tensor:
        """Map query and candidate tokens (N, D) to states (N, D), as the decoder does."""
        (n_segments, longest), widest = layout.history_shape, layout.suffix_shape[1]
        one_each = len(layout.segment_R) == n_segments
        for captured in self._passes if len(x_ND) and one_each else ():
            size = captured.size
            if size.requests >= n_segments and size.history >= longest and size.suffix >= widest:
                with self._lock:
                    states_ND = captured(x_ND, layout, past)
                    if states_ND.isfinite().all():
                        return states_ND
                    # NaN spreads through weights of zero. It must not reach the next request from this memory.
                    self._memory.clear()
                break
        states_ND = cast(Tensor, self._decoder(x_ND, layout, past)[0])
        return states_ND


class _Memory:
    """Tensors that all sizes share, each as long as the largest size wants it."""

    def __init__(self, decoder: Decoder, sizes: Sequence[Size]) -> None:
        n_suffix = max((size.requests * size.suffix for size in sizes), default=0)
        n_history = max((size.requests * size.history for size in sizes), default=0)
        device = decoder.norm.weight.device
        self.x_ND = torch.zeros(n_suffix, len(decoder.norm.weight), device=device)
        self.position_N, self.shown_N = torch.zeros(2, n_suffix, dtype=torch.long, device=device)
        self.past: list[Kept] = [
            tuple(torch.zeros(n_history, *shape, device=device) for shape in block.kept_shapes())
            for block in _layers(decoder)
        ]

    def clear(self) -> None:
        """Drop what the last passes held."""
        for tensor in (self.x_ND, *(tensor for of_layer in self.past for tensor in of_layer)):
            tensor.zero_()


class _Pass:
    """One size: its part of the memory, and the work that is replayed."""

    def __init__(self, decoder: Decoder, size: Size, shape: PromptShape, memory: _Memory, pool: Any) -> None:
        self.size, self._decoder, self._shape = size, decoder, shape
        n_suffix, n_history = size.requests * size.suffix, size.requests * size.history
        self._x_ND, self._position_N = memory.x_ND[:n_suffix], memory.position_N[:n_suffix]
        self._shown_N = memory.shown_N[:n_suffix]
        self._past = [tuple(tensor[:n_history] for tensor in of_layer) for of_layer in memory.past]
        self._replay = _captured(self._states, pool) if _on_gpu(decoder) else torch.no_grad()(self._states)

    def __call__(self, x_ND: Tensor, layout: Layout, past: Sequence[Kept]) -> Tensor:
        history_H = _moved(layout.history_slot_H, layout.history_shape[1], self.size.history)
        suffix_N = _moved(layout.suffix_slot_N, layout.suffix_shape[1], self.size.suffix)
        self._x_ND.index_copy_(0, suffix_N, x_ND)
        self._position_N.index_copy_(0, suffix_N, layout.position_N[-len(x_ND) :])
        self._shown_N.index_copy_(0, suffix_N, layout.shown_N)
        for mine, theirs in zip(self._past, past, strict=True):
            for memory, kept in zip(mine, theirs, strict=True):
                memory.index_copy_(0, history_H, kept)
        return self._replay().index_select(0, suffix_N)

    def _states(self) -> Tensor:
        """Return (G * S, D); a place that nothing was copied to means nothing, and no token sees it."""
        layers = _layers(self._decoder)
        prepared = layers[0].prepare_fixed(self._position_N)
        sizes = {"n_history": self.size.history, "n_suffix": self.size.suffix}
        sees_GSV = fixed_form(self._shown_N, self._shape, **sizes)
        x_ND = self._x_ND
        for block, past in zip(layers, self._past, strict=True):
            x_ND = block.fixed(x_ND, prepared, past, sees_GSV)
        states_ND: Tensor = self._decoder.norm(x_ND)
        return states_ND


@torch.no_grad()
def _captured(work: Callable[[], Tensor], pool: Any) -> Callable[[], Tensor]:
    """Run `work` until its kernels are chosen, capture it, and return what replays it."""
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
    """Return places in a padded (G, `width`) as places in one that is `to` wide."""
    return slot_N // width * to + slot_N % width


def _layers(decoder: Decoder) -> list[FixedSizeBlock]:
    return [cast(FixedSizeBlock, block) for block in decoder.blocks]


def _on_gpu(decoder: Decoder) -> bool:
    return decoder.norm.weight.device.type == "cuda"
