"""The decoder over kept histories, written down as an ONNX graph from its weights.

It is the arithmetic of `lrm.model.decoder` but for one thing: what a candidate takes from the history and from its own
tokens goes through one softmax, where training adds up two parts.

Shape suffixes: N flat tokens, E history tokens, G segments, U padded length of history and query tokens, S padded
length of query and candidate tokens, K tokens of a candidate, V = U + K, J key-value heads, P heads that share one,
L = S * P, Z head width, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lrm.model.attention import Attention
from lrm.model.causal import EPSILON, RmsNorm
from lrm.model.decoder import Block, Decoder, FeedForward

OPSET, IR_VERSION = 23, 11
"""Of the operators, the first with rotary positions and RMS norm; and of the form of a model."""
Op = Callable[..., Any]
"""Adds an operator: its kind, inputs (names, or arrays for constants) and attributes; returns its output's name, or
several. The names of axes after `_` are those of the value that it stands for."""


def decoder_graph(decoder: Decoder, *, per_candidate: int) -> bytes:
    """A decoder as a serialised ONNX model, which gives `states` for these inputs.

    | input | shape | holds |
    |---|---|---|
    | `x` | (N, D) | query tokens, then those of the candidates |
    | `cos`, `sin` | (1, N, Z / 2) | of their positions |
    | `keys_0`, `values_0`, `keys_1`, ... | (E, J, Z) | what each layer kept of the history |
    | `prefix_row` | (G, U) | row of the history token, or E plus that of the query token, at each place |
    | `suffix_row` | (G, S) | row of `x` at each place |
    | `own_row` | (G, S, K) | rows of `x` of all tokens of the candidate at each place |
    | `suffix_slot` | (N,) | place of each row of `x` in the padded (G, S) |
    | `bias` | (G, 1, L, V) | 0 where a token sees the prefix or its own candidate, else minus infinity |

    Args:
        decoder: on the processor.
        per_candidate: K.

    Raises:
        ImportError: onnx is not installed.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def name_of(value: str | np.ndarray) -> str:
        if isinstance(value, str):
            return value
        constants.append(numpy_helper.from_array(value, f"constant_{len(constants)}"))
        return str(constants[-1].name)

    def op(kind: str, *inputs: str | np.ndarray, n_outputs: int = 1, to: str = "", **attributes: Any) -> Any:
        outputs = [to or f"value_{len(nodes)}_{n}" for n in range(n_outputs)]
        nodes.append(helper.make_node(kind, [name_of(one) for one in inputs], outputs, **attributes))
        return outputs[0] if n_outputs == 1 else outputs

    x_ND, blocks = "x", cast(Sequence[Block], decoder.blocks)
    for layer, block in enumerate(blocks):
        normed_ND = _normed(op, x_ND, block.attention_norm)
        x_ND = op("Add", x_ND, _attended(op, normed_ND, block.attention, layer, per_candidate))
        x_ND = op("Add", x_ND, _mixed(op, _normed(op, x_ND, block.ffn_norm), block.ffn))
    _normed(op, x_ND, decoder.norm, to="states")

    attention, d_model = blocks[0].attention, len(decoder.norm.weight)
    kept = ("e", attention.n_kv_heads, attention.width)
    floats: dict[str, tuple[str | int, ...]] = {
        "x": ("n", d_model),
        "cos": (1, "n", attention.width // 2),
        "sin": (1, "n", attention.width // 2),
        "bias": ("g", 1, "l", "v"),
    } | {f"{what}_{layer}": kept for layer in range(len(blocks)) for what in ("keys", "values")}
    rows: dict[str, tuple[str | int, ...]] = {
        "prefix_row": ("g", "u"),
        "suffix_row": ("g", "s"),
        "own_row": ("g", "s", per_candidate),
        "suffix_slot": ("n",),
    }
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()]
    named += [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in rows.items()]
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, ("n", d_model))
    graph = helper.make_graph(nodes, "decoder", named, [states], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def _attended(op: Op, x_ND: str, attention: Attention, layer: int, per_candidate: int) -> str:
    """What the tokens take from the history, from the query and, in a candidate, from one another."""
    n_heads, n_kv_heads, width = attention.n_heads, attention.n_kv_heads, attention.width
    shared, n_turned = n_heads // n_kv_heads, n_heads + n_kv_heads
    scale = torch.ones(len(attention.qkv.weight), 1)
    scale[: n_heads * width] /= math.sqrt(width)
    qkv = _product(op, x_ND, scale * attention.qkv.weight)
    turning, v = op("Split", qkv, _whole(n_turned * width, n_kv_heads * width), n_outputs=2, axis=-1)
    turning = op("Unsqueeze", turning, _whole(0))
    turned = op("RotaryEmbedding", turning, "cos", "sin", interleaved=1, num_heads=n_turned)
    turned = op("Reshape", turned, _whole(-1, n_turned, width))
    q_NHZ, k_NJZ = op("Split", turned, _whole(n_heads, n_kv_heads), n_outputs=2, axis=1)
    v_NJZ = op("Reshape", v, _whole(-1, n_kv_heads, width))

    q_GSJPZ = op("Reshape", op("Gather", q_NHZ, "suffix_row"), _whole(0, 0, n_kv_heads, shared, width))
    q_GJSPZ = op("Transpose", q_GSJPZ, perm=(0, 2, 1, 3, 4))
    q_GJLZ = op("Reshape", q_GJSPZ, _whole(0, 0, -1, width))
    k_GUJZ = op("Gather", op("Concat", f"keys_{layer}", k_NJZ, axis=0), "prefix_row")
    v_GUJZ = op("Gather", op("Concat", f"values_{layer}", v_NJZ, axis=0), "prefix_row")
    past_GJLU = op("MatMul", q_GJLZ, op("Transpose", k_GUJZ, perm=(0, 2, 3, 1)))
    own_k_GJSZK = op("Transpose", op("Gather", k_NJZ, "own_row"), perm=(0, 3, 1, 4, 2))
    own_GJLK = op("Reshape", op("MatMul", q_GJSPZ, own_k_GJSZK), _whole(0, 0, -1, per_candidate))

    score_GJLV = op("Add", op("Concat", past_GJLU, own_GJLK, axis=-1), "bias")
    weight_GJLV = op("Softmax", score_GJLV, axis=-1)
    past_GJLU = op("Slice", weight_GJLV, _whole(0), _whole(-per_candidate), _whole(3))
    own_GJLK = op("Slice", weight_GJLV, _whole(-per_candidate), _whole(2**62), _whole(3))
    mixed_GJLZ = op("MatMul", past_GJLU, op("Transpose", v_GUJZ, perm=(0, 2, 1, 3)))
    own_GJSPK = op("Reshape", own_GJLK, _whole(0, 0, -1, shared, per_candidate))
    own_v_GJSKZ = op("Transpose", op("Gather", v_NJZ, "own_row"), perm=(0, 3, 1, 2, 4))
    own_mixed_GJLZ = op("Reshape", op("MatMul", own_GJSPK, own_v_GJSKZ), _whole(0, 0, -1, width))
    mixed_GJSPZ = op("Reshape", op("Add", mixed_GJLZ, own_mixed_GJLZ), _whole(0, 0, -1, shared, width))
    mixed_GSJPZ = op("Transpose", mixed_GJSPZ, perm=(0, 2, 1, 3, 4))
    mixed_ND = op("Gather", op("Reshape", mixed_GSJPZ, _whole(-1, n_heads * width)), "suffix_slot")
    return _product(op, mixed_ND, attention.out.weight)


def _mixed(op: Op, x_ND: str, ffn: FeedForward) -> str:
    gate, up = op("Split", _product(op, x_ND, ffn.gate_up.weight), n_outputs=2, num_outputs=2, axis=-1)
    return _product(op, op("Mul", op("Mul", gate, op("Sigmoid", gate)), up), ffn.down.weight)


def _normed(op: Op, x_ND: str, norm: RmsNorm, *, to: str = "") -> str:
    return str(op("RMSNormalization", x_ND, norm.weight.detach().numpy(), axis=-1, epsilon=EPSILON, to=to))


def _product(op: Op, x_ND: str, weight: Tensor) -> str:
    return str(op("MatMul", x_ND, np.ascontiguousarray(weight.detach().numpy().T)))


def _whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)
