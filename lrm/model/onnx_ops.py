"""A few ONNX operators over weights.

Shape suffixes: N flat tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from lrm.model.cpu_kernels import EPSILON, RmsNorm

OnnxOp = Callable[..., Any]
"""Adds an ONNX operator: `op(kind, *inputs, **attributes)`, where an input is a name or a constant array. It returns
the name of the output, or of several with `n_outputs`."""


def norm(op: OnnxOp, x_ND: str, layer: RmsNorm, *, to: str = "") -> str:
    """Add an RMS norm; `to` names its output."""
    weight_D = layer.weight.detach().numpy()
    return str(op("RMSNormalization", x_ND, weight_D, axis=-1, epsilon=EPSILON, to=to))


def product(op: OnnxOp, x_ND: str, weight: Tensor) -> str:
    """Add a product with the weight of a linear layer."""
    return str(op("MatMul", x_ND, np.ascontiguousarray(weight.detach().numpy().T)))


def whole(*numbers: int) -> np.ndarray:
    """Return the numbers as an operator takes them."""
    return np.array(numbers, dtype=np.int64)
