"""A few ONNX operators over weights.

Shape suffixes: N flat tokens, D model width.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lrm.model.blocks import OnnxOp
from lrm.model.cpu_kernels import EPSILON, RmsNorm


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
