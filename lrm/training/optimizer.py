"""The optimizer, its schedule, and the check that nothing is infinite before it moves."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lrm.config import TrainingConfig
from lrm.errors import TrainingDiverged

FINAL_RATE = 0.1
"""The learning rate ends at this share of its peak."""


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; embeddings, norms and vectors are not decayed."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in tables]
    kept = {id(p) for p in decayed}
    others = [p for p in model.parameters() if id(p) not in kept]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, *, total_steps: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return config.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * share)))


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, *, rate: float, clip: float, where: str
) -> float:
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
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    if not math.isfinite(norm.item()):
        bad = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        raise TrainingDiverged(
            f"the gradient of parameter group {bad[0] if bad else '(norm overflow)'!r} is not finite at {where} "
            f"({len(bad)} groups in all); the weights were not moved. Lower training.learning_rate in the preset"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return norm.item()
