"""Training on a GPU: attention over the flat tokens themselves, and each layer one compiled program of fixed shapes.

No segment is padded: the kernel of attention (2412.05496) is given the rule of `lrm.tokens.prompt`, stated once as a
function of two tokens, and never computes blocks of tokens of which none sees another. Only the number of tokens is
made up, to one of few sizes, for each of which a layer is compiled when it first comes. On a processor padding is
quicker (`lrm.model.attention`), and the kernel has no gradient there.

Shape suffixes: N flat tokens with those that make up their number, D model width, H heads, J key-value heads, Z head
width.
"""

from __future__ import annotations

import functools
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask, flex_attention

from lrm.tokens.prompt import Layout

NARROWEST = 16
"""Least head width that the kernel takes."""
SMALLEST = 1024
"""Tokens that a prompt is made up to at least."""
MOST_SIZES = 64
"""Sizes that a layer is compiled for at most."""
FAR = 2**30
"""Stands for the place in the history of a token that is not of the history."""
Layer = TypeVar("Layer", bound=Callable[..., Tensor])
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def is_packed(x_ND: Tensor, *, width: int) -> bool:
    """Whether attention over whole prompts is packed, `width` being that of a head.

    It is for gradients on a GPU, where the kernel can be had: it takes no narrower heads than 16 numbers, and is built
    when first used, for which Triton needs a C compiler and Python's headers.
    """
    return x_ND.device.type == "cuda" and torch.is_grad_enabled() and width >= NARROWEST and _has_compiler()


def packed_mask(layout: Layout) -> BlockMask:
    """Who sees whom among the flat tokens of a batch, and among those that make up their number."""
    device, n_all = layout.position_N.device, made_up(len(layout.position_N))
    # Compiled, so that the N x N answers of the rule are never held.
    create = _compiled_mask() if device.type == "cuda" else create_block_mask
    mask: BlockMask = create(prompt_rule(layout, n_all=n_all), None, None, n_all, n_all, device=device)
    return mask


def made_up(n_tokens: int) -> int:
    """The number of tokens that so many are made up to: four sizes between a power of two and the next."""
    step = max(SMALLEST, 1 << max(0, (n_tokens - 1).bit_length() - 3))
    return max(SMALLEST, -(-n_tokens // step) * step)


def prompt_rule(layout: Layout, *, n_all: int) -> Rule:
    """The rule as flex attention wants it: whether token `q` sees token `k`, of `n_all` with those past the last.

    Every token has a number of its own kind, and sees all tokens of that number: those of a candidate share one, any
    other token is alone with its own. So every token sees itself, and those that make up the number nothing else.
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

    def sees(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        history = (segment_N[q] == segment_N[k]) & (place_N[k] < horizon_N[q])
        return history | (asks_N[q] == told_N[k]) | (own_N[q] == own_N[k])

    return sees


def packed_attention(q_NHZ: Tensor, k_NJZ: Tensor, v_NJZ: Tensor, mask: BlockMask) -> Tensor:
    """(N, H, Z): what every token takes from those that it sees.

    Anywhere but on a GPU the mask is written out, N x N: a reference to test the rule by, with gradients.
    """
    q_1HNZ, k_1JNZ, v_1JNZ = (x.transpose(0, 1).unsqueeze(0) for x in (q_NHZ, k_NJZ, v_NJZ))
    is_grouped = q_NHZ.shape[1] != k_NJZ.shape[1]
    if q_NHZ.device.type == "cuda":
        mixed_1HNZ: Tensor = flex_attention(q_1HNZ, k_1JNZ, v_1JNZ, block_mask=mask, enable_gqa=is_grouped)
    else:
        sees_11NN = create_mask(mask.mask_mod, 1, 1, len(q_NHZ), len(q_NHZ), device=str(q_NHZ.device))
        mixed_1HNZ = functional.scaled_dot_product_attention(
            q_1HNZ, k_1JNZ, v_1JNZ, attn_mask=sees_11NN, enable_gqa=is_grouped
        )
    return mixed_1HNZ.squeeze(0).transpose(0, 1)


@functools.cache
def compiled(layer: Layer, *, backend: str | Callable[..., Any] = "inductor") -> Layer:
    """A layer compiled as a whole, anew for each size; layers of like shape share what was compiled.

    Raises:
        RuntimeError: from a call, if something in the layer cannot be compiled, or more than `MOST_SIZES` sizes came.
    """
    torch.compiler.config.recompile_limit = max(MOST_SIZES, torch.compiler.config.recompile_limit)
    return cast(Layer, torch.compile(layer, fullgraph=True, dynamic=False, backend=backend))


@functools.cache
def _compiled_mask() -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask, dynamic=True)


@functools.cache
def _has_compiler() -> bool:
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    headers = Path(sysconfig.get_path("include"))
    return any(map(shutil.which, compilers)) and (headers / "Python.h").is_file()
