"""The decoder over kept histories, run by ONNX Runtime: the same numbers, less time between them.

A request is small work: a hundred operators on a few tokens, and most of the time passes between the operators. The
graph (`lrm.model.graph`) is written from the weights in milliseconds: nothing is traced, and nothing kept on a disk.

Shape suffixes: N flat tokens, E history tokens, G segments, U padded length of history and query tokens, S padded
length of query and candidate tokens, K tokens of a candidate, J key-value heads, Z head width, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lrm.model.attention import KeysValues, rotations
from lrm.model.decoder import Block, Decoder
from lrm.model.graph import decoder_graph
from lrm.tokens.prompt import Layout


@dataclass(frozen=True)
class Exported:
    """A decoder that ONNX Runtime runs, on one core."""

    session: Any
    """`onnxruntime.InferenceSession`"""
    head_width: int
    shared: int
    """Heads that share their keys and values with one another."""

    def __call__(self, x_ND: Tensor, layout: Layout, past: Sequence[KeysValues]) -> Tensor:
        """(N, D) query and candidate tokens to (N, D) states, as the decoder gives them."""
        if not len(x_ND):
            return x_ND
        turn_NZ2 = torch.view_as_real(rotations(layout.position_N[-len(x_ND) :], width=self.head_width))
        cos_NZ, sin_NZ = turn_NZ2.unsqueeze(0).unbind(-1)
        fed = {"x": x_ND.numpy(), "cos": cos_NZ.numpy(), "sin": sin_NZ.numpy()}
        fed |= _places(layout, len(x_ND), len(past[0].keys_HJZ), shared=self.shared)
        for layer, (keys_EJZ, values_EJZ) in enumerate(past):
            fed |= {f"keys_{layer}": keys_EJZ.numpy(), f"values_{layer}": values_EJZ.numpy()}
        return torch.from_numpy(self.session.run(["states"], fed)[0])


def export(decoder: Decoder, *, per_candidate: int) -> Exported:
    """Write a decoder down and open it; what happens to its weights later does not count.

    Args:
        decoder: on the processor.
        per_candidate: tokens of a candidate.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it would keep a plan of memory for every shape of a batch
    graph, attention = decoder_graph(decoder, per_candidate=per_candidate), cast(Block, decoder.blocks[0]).attention
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return Exported(session, decoder.head_width, attention.n_heads // attention.n_kv_heads)


def _places(layout: Layout, n_tokens: int, n_history: int, *, shared: int) -> dict[str, np.ndarray]:
    """Which token stands at each padded place, any where none does; and what is seen from there."""
    n_segments, widest, n_past = layout.bias_GSU.shape
    prefix_N, suffix_N = layout.prefix_slot_N.numpy(), layout.suffix_slot_N.numpy()
    prefix_row = np.zeros(n_segments * n_past, dtype=np.int64)
    prefix_row[prefix_N] = np.arange(len(prefix_N))
    suffix_row = np.zeros(n_segments * widest, dtype=np.int64)
    suffix_row[suffix_N] = np.arange(n_tokens)
    per, n_query = layout.shape.per_candidate, len(prefix_N) - n_history
    own_row = np.zeros((n_segments * widest, per), dtype=np.int64)
    own_row[suffix_N[n_query:]] = np.arange(n_query, n_tokens).reshape(-1, per).repeat(per, 0)
    own_bias = np.full((n_segments * widest, per), -np.inf, dtype=np.float32)
    own_bias[suffix_N[n_query:]] = 0.0
    bias_GSV = np.concatenate([layout.bias_GSU.numpy(), own_bias.reshape(n_segments, widest, per)], axis=-1)
    return {
        "prefix_row": prefix_row.reshape(n_segments, n_past),
        "suffix_row": suffix_row.reshape(n_segments, widest),
        "own_row": own_row.reshape(n_segments, widest, per),
        "suffix_slot": suffix_N,
        "bias": bias_GSV.repeat(shared, axis=1)[:, np.newaxis],
    }
