"""Training on a GPU: attention over the flat tokens themselves, and each layer one compiled program of fixed shapes.

No segment is padded. The attention kernel (2412.05496) takes the rule of `lrm.tokens.visibility` as a function of two
tokens, and skips blocks of tokens where no token sees another. Only the number of tokens is padded, to one of a few
sizes; a layer is compiled when a size first comes. On a processor padding is quicker (`lrm.model.attention`), and the
kernel has no gradient there.

Shape suffixes: N flat tokens with the fillers, H heads, J key-value heads, Z head width.
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

from lrm.tokens.layout import Layout
from lrm.tokens.visibility import rule

NARROWEST = 16
"""Least head width that the kernel takes."""
SMALLEST = 1024
"""Least number of tokens that a prompt is padded to."""
MOST_SIZES = 64
"""Sizes that a layer is compiled for at most."""
Layer = TypeVar("Layer", bound=Callable[..., Tensor])


def can_use_flex(x_ND: Tensor, *, head_width: int) -> bool:
    """Return whether attention over whole prompts can use the kernel.

    It is for gradients on a GPU. The kernel takes no head narrower than 16 numbers. It is built when first used, for
    which Triton needs a C compiler and Python's headers.
    """
    return x_ND.device.type == "cuda" and torch.is_grad_enabled() and head_width >= NARROWEST and _has_compiler()


def flex_mask(layout: Layout) -> BlockMask:
    """Return who sees whom among the flat tokens of a batch and the fillers."""
    device, n_all = layout.position_N.device, padded_size(len(layout.position_N))
    sees = rule(layout, n_all=n_all)

    def sees_here(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return sees(q, k)

    # Compiled, so that the N x N answers of the rule are never held.
    create = _compiled_mask() if device.type == "cuda" else create_block_mask
    mask: BlockMask = create(sees_here, None, None, n_all, n_all, device=device)
    return mask


def padded_size(n_tokens: int) -> int:
    """Return the number of tokens to pad to: one of four sizes between a power of two and the next."""
    step = max(SMALLEST, 1 << max(0, (n_tokens - 1).bit_length() - 3))
    return max(SMALLEST, -(-n_tokens // step) * step)


def masked_attention(q_NHZ: Tensor, k_NJZ: Tensor, v_NJZ: Tensor, mask: BlockMask) -> Tensor:
    """Return (N, H, Z): what every token takes from those that it sees.

    On a processor the mask is written out, N x N: a reference to test the rule by, with gradients.
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
    """Return the layer compiled as a whole, anew for each size; layers of the same shape share one program.

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
