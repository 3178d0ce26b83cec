"""The default block as ONNX operators, for decoding over kept histories.

It is the arithmetic of `lrm.model.blocks.softmax_attention` but for one thing: what a candidate takes from the history
and from its own tokens goes through one softmax, where training adds up two parts.

Shape suffixes: N flat tokens, G segments, U padded length of history and query tokens, S padded length of query and
candidate tokens, K tokens of a candidate, V = U + K, J key-value heads, P heads that share one, L = S * P, Z head
width, D model width.
"""

from __future__ import annotations

import math

import torch

from lrm.model.attention import Attention
from lrm.model.cpu_kernels import RmsNorm
from lrm.model.feed_forward import FeedForward
from lrm.model.onnx_ops import OnnxOp, norm, product, whole

Parts = tuple[RmsNorm, Attention, RmsNorm, FeedForward]


def layer_nodes(op: OnnxOp, x_ND: str, parts: Parts, *, layer: int, per_candidate: int) -> str:
    """Add the operators of one layer, and return the name of its output."""
    attention_norm, attention, ffn_norm, ffn = parts
    x_ND = op("Add", x_ND, _attended(op, norm(op, x_ND, attention_norm), attention, layer, per_candidate))
    return str(op("Add", x_ND, _mixed(op, norm(op, x_ND, ffn_norm), ffn)))


def _attended(op: OnnxOp, x_ND: str, attention: Attention, layer: int, per_candidate: int) -> str:
    """Return what the tokens take from the history, from the query and, in a candidate, from one another."""
    n_heads, n_kv_heads, width = attention.n_heads, attention.n_kv_heads, attention.width
    shared, n_turned = n_heads // n_kv_heads, n_heads + n_kv_heads
    scale = torch.ones(len(attention.qkv.weight), 1)
    scale[: n_heads * width] /= math.sqrt(width)
    qkv = product(op, x_ND, scale * attention.qkv.weight)
    turning, v = op("Split", qkv, whole(n_turned * width, n_kv_heads * width), n_outputs=2, axis=-1)
    turning = op("Unsqueeze", turning, whole(0))
    turned = op("RotaryEmbedding", turning, "cos", "sin", interleaved=1, num_heads=n_turned)
    turned = op("Reshape", turned, whole(-1, n_turned, width))
    q_NHZ, k_NJZ = op("Split", turned, whole(n_heads, n_kv_heads), n_outputs=2, axis=1)
    v_NJZ = op("Reshape", v, whole(-1, n_kv_heads, width))

    q_GSJPZ = op("Reshape", op("Gather", q_NHZ, "suffix_row"), whole(0, 0, n_kv_heads, shared, width))
    q_GJSPZ = op("Transpose", q_GSJPZ, perm=(0, 2, 1, 3, 4))
    q_GJLZ = op("Reshape", q_GJSPZ, whole(0, 0, -1, width))
    k_GUJZ = op("Gather", op("Concat", f"kept_{layer}_0", k_NJZ, axis=0), "prefix_row")
    v_GUJZ = op("Gather", op("Concat", f"kept_{layer}_1", v_NJZ, axis=0), "prefix_row")
    past_GJLU = op("MatMul", q_GJLZ, op("Transpose", k_GUJZ, perm=(0, 2, 3, 1)))
    own_k_GJSZK = op("Transpose", op("Gather", k_NJZ, "own_row"), perm=(0, 3, 1, 4, 2))
    own_GJLK = op("Reshape", op("MatMul", q_GJSPZ, own_k_GJSZK), whole(0, 0, -1, per_candidate))

    score_GJLV = op("Add", op("Concat", past_GJLU, own_GJLK, axis=-1), "bias")
    weight_GJLV = op("Softmax", score_GJLV, axis=-1)
    past_GJLU = op("Slice", weight_GJLV, whole(0), whole(-per_candidate), whole(3))
    own_GJLK = op("Slice", weight_GJLV, whole(-per_candidate), whole(2**62), whole(3))
    mixed_GJLZ = op("MatMul", past_GJLU, op("Transpose", v_GUJZ, perm=(0, 2, 1, 3)))
    own_GJSPK = op("Reshape", own_GJLK, whole(0, 0, -1, shared, per_candidate))
    own_v_GJSKZ = op("Transpose", op("Gather", v_NJZ, "own_row"), perm=(0, 3, 1, 2, 4))
    own_mixed_GJLZ = op("Reshape", op("MatMul", own_GJSPK, own_v_GJSKZ), whole(0, 0, -1, width))
    mixed_GJSPZ = op("Reshape", op("Add", mixed_GJLZ, own_mixed_GJLZ), whole(0, 0, -1, shared, width))
    mixed_GSJPZ = op("Transpose", mixed_GJSPZ, perm=(0, 2, 1, 3, 4))
    mixed_ND = op("Gather", op("Reshape", mixed_GSJPZ, whole(-1, n_heads * width)), "suffix_slot")
    return product(op, mixed_ND, attention.out.weight)


def _mixed(op: OnnxOp, x_ND: str, ffn: FeedForward) -> str:
    gate, up = op("Split", product(op, x_ND, ffn.gate_up.weight), n_outputs=2, num_outputs=2, axis=-1)
    return product(op, op("Mul", op("Mul", gate, op("Sigmoid", gate)), up), ffn.down.weight)
