"""The feed-forward layer of a block.

Shape suffixes: N flat tokens, D model width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class FeedForward(nn.Module):
    """SwiGLU (2002.05202)."""

    def __init__(self, *, d_model: int, d_hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * d_hidden, bias=False)
        self.down = nn.Linear(d_hidden, d_model, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Map (N, D) to (N, D)."""
        gate, up = self.gate_up(x_ND).chunk(2, dim=-1)
        mixed_ND: Tensor = self.down(functional.silu(gate) * up)
        return mixed_ND
