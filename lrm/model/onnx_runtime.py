"""A decoder over kept histories, run by ONNX Runtime: the same numbers, less time between them.

A request is small work: a hundred operators on a few tokens, and most of the time passes between the operators. The
graph (`lrm.model.onnx_graph`) is written from the weights in milliseconds: nothing is traced, and nothing is written to
a disk.

Shape suffixes: N flat tokens, G segments, U padded length of history and query tokens, S padded length of query and
candidate tokens, K tokens of a candidate, V = U + K, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lrm.model.blocks import Kept, OnnxBlock
from lrm.model.decoder import Decoder
from lrm.model.onnx_graph import decoder_graph
from lrm.tokens.layout import Layout


@dataclass(frozen=True)
class OnnxDecoder:
    """A decoder that ONNX Runtime runs, on one core."""

    session: Any
    """`onnxruntime.InferenceSession`"""
    first: OnnxBlock
    """The first layer, which says what the graph is fed besides."""

    def __call__(self, x_ND: Tensor, layout: Layout, past: Sequence[Kept]) -> Tensor:
        """Map query and candidate tokens (N, D) to states (N, D), as the decoder does."""
        if not len(x_ND):
            return x_ND
        rows, bias_GSV = _places(layout, len(x_ND), len(layout.history_slot_H))
        fed = {"x": x_ND.numpy()} | rows | self.first.onnx_feed(layout, len(x_ND), bias_GSV)
        for layer, kept in enumerate(past):
            fed |= {f"kept_{layer}_{n}": tensor.numpy() for n, tensor in enumerate(kept)}
        return torch.from_numpy(self.session.run(["states"], fed)[0])


def export(decoder: Decoder, *, per_candidate: int) -> OnnxDecoder:
    """Write a decoder down and open it; later changes of its weights do not count.

    Args:
        decoder: on the processor, of blocks that offer ONNX operators.
        per_candidate: tokens of a candidate.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it would keep a plan of memory for every shape of a batch
    blocks = [cast(OnnxBlock, block) for block in decoder.blocks]
    graph = decoder_graph(blocks, decoder.norm, per_candidate=per_candidate)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return OnnxDecoder(session, blocks[0])


def _places(layout: Layout, n_tokens: int, n_history: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return which token stands at each padded place (any, where there is none), and what is seen from there."""
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
    rows = {
        "prefix_row": prefix_row.reshape(n_segments, n_past),
        "suffix_row": suffix_row.reshape(n_segments, widest),
        "own_row": own_row.reshape(n_segments, widest, per),
        "suffix_slot": suffix_N,
    }
    return rows, np.concatenate([layout.bias_GSU.numpy(), own_bias.reshape(n_segments, widest, per)], axis=-1)
