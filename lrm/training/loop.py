"""Train factory and decoder jointly on the objectives of a preset.

All randomness of a step is derived from (seed, epoch, step), so that a resumed run needs no generator state.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrm.errors import TrainingDiverged
from lrm.model.recommender import Recommender
from lrm.progress import progress
from lrm.tokens.corpus import Corpus
from lrm.training import checkpoint
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.optimizer import learning_rate, make_optimizer, step
from lrm.training.validation import stopping_value, validate

Curves = dict[str, list[list[float]]]


@dataclass
class Progress:
    """Where training stands: what a checkpoint holds beside weights and optimizer."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_value: float = float("inf")
    """The `stopping_value` of the best epoch."""
    cpu_seconds: float = 0.0
    """Of training alone: without validation, and without what the caller does between epochs."""
    curves: Curves = field(default_factory=dict)

    def log(self, series: str, value: float) -> None:
        """Append to a curve at the current step."""
        self.curves.setdefault(series, []).append([self.step, round(value, 6)])

    def log_validation(self, measured: Mapping[str, float]) -> bool:
        """End an epoch; returns whether it is the best one.

        Raises:
            TrainingDiverged: a measured value is not finite.
        """
        for name, value in measured.items():
            self.log(f"validation/{name}", value)
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        if not all(math.isfinite(value) for value in measured.values()):
            raise TrainingDiverged(
                f"the validation loss is not a number after epoch {self.epoch} (step {self.step}); look for extreme "
                "values in the validation report, or lower training.learning_rate in the preset"
            )
        value = stopping_value(measured)
        is_best = value < self.best_value or math.isinf(value)
        if is_best:
            self.best_value, self.best_epoch = value, self.epoch - 1
        return is_best


def fit(recommender: Recommender, corpus: Corpus, *, seed: int, checkpoints: Path | None) -> Progress:
    """Train in place until validation stops improving; the weights end as those of the best epoch."""
    *_, state = epochs(recommender, corpus, seed=seed, checkpoints=checkpoints)
    return state


def epochs(recommender: Recommender, corpus: Corpus, *, seed: int, checkpoints: Path | None) -> Iterator[Progress]:
    """Train in place, and yield after each epoch, with the weights that were validated.

    The last time, the weights are those of the best epoch.
    """
    recommender.check_budget()
    recommender.fit_head(corpus, seed=seed)
    config = recommender.config.training
    data = TrainingData(corpus, recommender)
    losses, optimizer = Losses(recommender, data), make_optimizer(recommender, config)
    state, best = Progress(), copy.deepcopy(recommender.state_dict())
    ema = copy.deepcopy(recommender.state_dict()) if config.ema_decay else None
    saved = checkpoint.load(checkpoints)
    if saved is not None:
        recommender.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state, best, ema = Progress(**saved["progress"]), saved["best"], saved["ema"]

    def save() -> None:
        parts: dict[str, Any] = {"model": recommender.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
        checkpoint.save(checkpoints, parts | {"ema": ema, "progress": vars(state)})

    n_epochs = data.n_epochs(seed=seed)
    while state.epoch < n_epochs and state.epoch - state.best_epoch <= config.patience:
        started = time.process_time() - state.cpu_seconds
        epoch = data.epoch(np.random.default_rng((seed, state.epoch)))
        rest = range(state.step_in_epoch, len(epoch.rows))
        for place in progress(rest, what=f"train, epoch {state.epoch + 1}", total=len(rest), unit="step"):
            by_name = losses.of_step(epoch.batch(place), seed=seed, at=state.step)
            rate = learning_rate(state.step, total_steps=n_epochs * len(epoch.rows), config=config)
            values = ", ".join(f"{name} {loss.item():.4g}" for name, loss in by_name.items())
            where = f"step {state.step} (epoch {state.epoch + 1}, batch {place}; losses: {values})"
            norm = step(recommender, optimizer, losses.total(by_name), rate=rate, clip=config.clip_norm, where=where)
            for name, loss in by_name.items():
                state.log(f"train/{name}_loss", loss.item())
            state.log("train/gradient_norm", norm)
            state.step, state.step_in_epoch = state.step + 1, place + 1
            if ema is not None:
                update_ema(ema, recommender, decay=config.ema_decay, step=state.step)
            state.cpu_seconds = time.process_time() - started
            if state.step % config.checkpoint_every_steps == 0:
                save()
        trained = copy.deepcopy(recommender.state_dict())
        recommender.load_state_dict(ema or trained)
        if state.log_validation(validate(recommender, data, losses)):
            best = copy.deepcopy(recommender.state_dict())
        yield state
        recommender.load_state_dict(trained)
        save()
    recommender.load_state_dict(best)
    yield state


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], recommender: Recommender, *, decay: float, step: int) -> None:
    """Move an exponential moving average of the weights one step towards the weights.

    Args:
        ema: average of each weight by name; changed in place.
        recommender: the model in training.
        decay: share of the average that a step keeps. The first steps keep less, so that the weights at the start are
            soon forgotten.
        step: how many steps there have been.
    """
    decay = min(decay, step / (step + 10))
    for name, value in recommender.state_dict().items():
        if value.is_floating_point():
            ema[name].lerp_(value, 1 - decay)
        else:  # a buffer of the item head
            ema[name].copy_(value)
