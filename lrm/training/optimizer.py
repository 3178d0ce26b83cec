"""The optimizer, its schedule, and the check that nothing is infinite before it moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrm.config import TrainingConfig
from lrm.errors import TrainingDiverged
from lrm.model.device import repeatable

BETAS = (0.9, 0.98)
FINAL_RATE = 0.1
"""The learning rate ends at this share of its peak."""


class Optimizers:
    """AdamW for what every step moves, lazy Adam for tables of which a step touches a few rows; used as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of all parts."""
        return [group for part in self._parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move all weights that have a gradient."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each part."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Take up what `state_dict` gave."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def make_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizers:
    """AdamW; embeddings, norms and vectors are not decayed, and tables with sparse gradients learn by themselves."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    lazy = {id(module.weight): module.weight for module in tables if module.sparse}
    undecayed = {id(module.weight) for module in tables}
    dense = [p for p in model.parameters() if id(p) not in lazy]
    decayed = [p for p in dense if p.dim() >= 2 and id(p) not in undecayed]
    others = [p for p in dense if p.dim() < 2 or id(p) in undecayed]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True),
    ]
    if lazy:
        parts.append(torch.optim.SparseAdam(list(lazy.values()), lr=config.learning_rate, betas=BETAS))
    return Optimizers(parts)


def learning_rate(step: int, *, total_steps: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return config.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * share)))


def step(model: nn.Module, optimizer: Optimizers, loss: Tensor, *, rate: float, clip: float, where: str) -> float:
    """Backpropagate, check, clip and move; returns the gradient's norm before clipping.

    Raises:
        TrainingDiverged: the loss or a gradient is not finite; the weights are as they were.
    """
    if not math.isfinite(loss.item()):
        bad = [name for name, p in model.named_parameters() if not p.isfinite().all()]
        raise TrainingDiverged(
            f"the loss is {loss.item()} at {where}; parameter groups that are not finite: {', '.join(bad) or 'none'}. "
            "The weights were not moved. Look for extreme values in the validation report, or lower "
            "training.learning_rate in the preset"
        )
    optimizer.zero_grad()
    with repeatable():
        loss.backward()  # type: ignore[no-untyped-call]
    norm = clip_gradients(model, clip)
    if not math.isfinite(norm):
        bad = [name for name, p in model.named_parameters() if p.grad is not None and not _values(p).isfinite().all()]
        raise TrainingDiverged(
            f"the gradient of parameter group {bad[0] if bad else '(norm overflow)'!r} is not finite at {where} "
            f"({len(bad)} groups in all); the weights were not moved. Lower training.learning_rate in the preset"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return norm


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scale all gradients so that their common norm is at most `limit`; returns the norm before."""
    for p in model.parameters():
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
    values = [_values(p) for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(values)
    torch._foreach_mul_(values, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm.item()


def _values(parameter: nn.Parameter) -> Tensor:
    """What a gradient holds: all of a dense one, the touched rows of a sparse one."""
    gradient = parameter.grad
    assert gradient is not None
    return gradient.values() if gradient.is_sparse else gradient
