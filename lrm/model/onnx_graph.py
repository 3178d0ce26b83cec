"""A decoder over kept histories, written down as an ONNX graph from its weights.

Each layer writes its own operators (`lrm.model.blocks.OnnxBlock`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lrm.model.blocks import OnnxBlock
from lrm.model.cpu_kernels import RmsNorm
from lrm.model.onnx_ops import norm

OPSET, IR_VERSION = 23, 11
"""Versions of the operators, the first with rotary positions and RMS norm, and of the model's form."""


def decoder_graph(blocks: Sequence[OnnxBlock], final_norm: RmsNorm, *, per_candidate: int) -> bytes:
    """Return a decoder as a serialised ONNX model, which gives `states` for these inputs.

    | input | shape | holds |
    |---|---|---|
    | `x` | (N, D) | query tokens, then those of the candidates |
    | `kept_0_0`, `kept_0_1`, `kept_1_0`, ... | (E, ...) | what each layer kept of the E history tokens |
    | `prefix_row` | (G, U) | row of the history token, or E plus that of the query token, at each place |
    | `suffix_row` | (G, S) | row of `x` at each place |
    | `own_row` | (G, S, K) | rows of `x` of all tokens of the candidate at each place |
    | `suffix_slot` | (N,) | place of each row of `x` in the padded (G, S) |
    | ... | | what the block needs besides (`onnx_inputs`) |

    Args:
        blocks: the layers, on the processor.
        final_norm: after the last layer.
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
        nodes.append(helper.make_node(kind, [name_of(value) for value in inputs], outputs, **attributes))
        return outputs[0] if n_outputs == 1 else outputs

    x_ND = "x"
    for layer, block in enumerate(blocks):
        x_ND = block.onnx_nodes(op, x_ND, layer, per_candidate)
    norm(op, x_ND, final_norm, to="states")

    d_model = len(final_norm.weight)
    floats: dict[str, tuple[int | str, ...]] = {"x": ("n", d_model), **blocks[0].onnx_inputs()}
    for layer, block in enumerate(blocks):
        floats |= {f"kept_{layer}_{n}": ("e", *shape) for n, shape in enumerate(block.kept_shapes())}
    rows: dict[str, tuple[int | str, ...]] = {
        "prefix_row": ("g", "u"),
        "suffix_row": ("g", "s"),
        "own_row": ("g", "s", per_candidate),
        "suffix_slot": ("n",),
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in rows.items()]
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, ("n", d_model))
    graph = helper.make_graph(nodes, "decoder", inputs, [states], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())
