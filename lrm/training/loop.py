"""Joint training of factory and decoder on retrieval and ranking.

All randomness of a step is derived from (seed, epoch, step), so that a resumed run needs no generator state.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrm.config import BUDGETS, TrainingConfig
from lrm.errors import TrainingDiverged
from lrm.model.device import seeded
from lrm.model.recommender import Recommender
from lrm.progress import progress
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import forget_identities
from lrm.tokens.prompt import Batch, build_batch
from lrm.tokens.segments import Segments, segment_tokens, token_batches, training_segments
from lrm.training import checkpoint
from lrm.training.context import Context
from lrm.training.generated import Negatives
from lrm.training.objectives import Objective, objectives, weighted_sum
from lrm.training.optimizer import learning_rate, make_optimizer, step
from lrm.training.validation import judged, validate
from lrm.training.windows import shifted_windows

Curves = dict[str, list[list[float]]]


@dataclass
class Progress:
    """Where training stands: what a checkpoint holds besides weights and optimizer."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_judged: float = float("inf")
    """What `lrm.training.validation` says of the best epoch."""
    cpu_seconds: float = 0.0
    """Of training alone: without validation, and without what the caller does between epochs."""
    curves: Curves = field(default_factory=dict)

    def log(self, series: str, value: float) -> None:
        """Append to a curve at the current step."""
        self.curves.setdefault(series, []).append([self.step, round(value, 6)])


def fit(recommender: Recommender, corpus: Corpus, *, seed: int, checkpoints: Path | None) -> Progress:
    """Train in place until validation gets no better; the weights end as those of the best epoch."""
    *_, state = epochs(recommender, corpus, seed=seed, checkpoints=checkpoints)
    return state


def epochs(recommender: Recommender, corpus: Corpus, *, seed: int, checkpoints: Path | None) -> Iterator[Progress]:
    """Train in place, handing over after each epoch, with the weights that it was validated with.

    The last time round the weights are those of the best epoch, which ends before the others where early stopping
    says so.
    """
    recommender.check_budget()
    config = recommender.config.training
    optimizer = make_optimizer(recommender, config)
    state, best = Progress(), copy.deepcopy(recommender.state_dict())
    average = copy.deepcopy(recommender.state_dict()) if config.average else None
    saved = checkpoint.load(checkpoints)
    if saved is not None:
        recommender.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state, best, average = Progress(**saved["progress"]), saved["best"], saved["average"]

    def save() -> None:
        parts: dict[str, Any] = {"model": recommender.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
        checkpoint.save(checkpoints, parts | {"average": average, "progress": vars(state)})

    negatives, terms = negatives_of(corpus, config), objectives(config.objectives)
    segments = _segments(recommender, corpus, np.random.default_rng((seed, 0)))
    planned = recommender.planned_shape()
    n_tokens = int(segment_tokens(corpus, segments, planned).sum())
    n_epochs = max(1, round(config.max_steps * config.batch_tokens / max(1, n_tokens)))
    while state.epoch < n_epochs and state.epoch - state.best_epoch <= config.patience:
        started, rng = time.process_time() - state.cpu_seconds, np.random.default_rng((seed, state.epoch))
        if config.events_only:
            segments = _segments(recommender, corpus, rng)
        lengths = segment_tokens(corpus, segments, planned)
        plan = list(token_batches(lengths, batch_tokens=config.batch_tokens, rng=rng))
        total_steps = n_epochs * len(plan)
        rest = range(state.step_in_epoch, len(plan))
        for place in progress(rest, what=f"train, epoch {state.epoch + 1}", total=len(rest), unit="step"):
            losses = train_step(
                recommender, corpus, segments.pick(plan[place]), negatives, terms, seed=seed, at=state.step
            )
            rate = learning_rate(state.step, total_steps=total_steps, config=config)
            seen = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
            where = f"step {state.step} (epoch {state.epoch + 1}, batch {place}; losses: {seen})"
            total = weighted_sum(losses, config.objectives)
            norm = step(recommender, optimizer, total, rate=rate, clip=config.clip_norm, where=where)
            for name, loss in (losses | {"gradient_norm": torch.tensor(norm)}).items():
                state.log(f"train/{name}_loss" if name in losses else f"train/{name}", loss.item())
            state.step, state.step_in_epoch = state.step + 1, place + 1
            if average is not None:
                follow(average, recommender, most=config.average, step=state.step)
            state.cpu_seconds = time.process_time() - started
            if state.step % config.checkpoint_every_steps == 0:
                save()
        trained = copy.deepcopy(recommender.state_dict())
        recommender.load_state_dict(average or trained)
        found = validate(recommender, corpus, negatives)
        for name, value in found.items():
            state.log(f"validation/{name}", value)
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        if not all(math.isfinite(value) for value in found.values()):
            raise TrainingDiverged(
                f"the validation loss is not a number after epoch {state.epoch} (step {state.step}); look for extreme "
                "values in the validation report, or lower training.learning_rate in the preset"
            )
        if judged(found) < state.best_judged or math.isinf(judged(found)):
            state.best_judged, state.best_epoch = judged(found), state.epoch - 1
            best = copy.deepcopy(recommender.state_dict())
        yield state
        recommender.load_state_dict(trained)
        save()
    recommender.load_state_dict(best)
    yield state


def _segments(recommender: Recommender, corpus: Corpus, rng: np.random.Generator) -> Segments:
    """What an epoch reads."""
    max_history = recommender.prompt_shape().max_history
    if recommender.config.training.events_only:
        return shifted_windows(corpus, max_history=max_history, rng=rng)
    return training_segments(corpus, max_history=max_history)


@torch.no_grad()
def follow(average: dict[str, Tensor], recommender: Recommender, *, most: float, step: int) -> None:
    """Move a running average of the weights towards the weights.

    Args:
        average: by name; changed in place.
        recommender: whose weights are followed.
        most: decay a step; less in the first steps, so that the weights of the start are soon forgotten.
        step: how many steps there have been.
    """
    decay = min(most, step / (step + 10))
    for name, value in recommender.state_dict().items():
        average[name].lerp_(value, 1 - decay)


def negatives_of(corpus: Corpus, config: TrainingConfig) -> Negatives:
    """What next-item predictions are told apart from."""
    counts_V = np.bincount(corpus.event_row_E[corpus.event_is_train_E], minlength=len(corpus.item_ids))
    return Negatives(counts_V, n_negatives=config.n_negatives, full_up_to=config.full_softmax_items)


def train_step(
    recommender: Recommender,
    corpus: Corpus,
    segments: Segments,
    negatives: Negatives,
    terms: dict[str, Objective],
    *,
    seed: int,
    at: int,
) -> dict[str, Tensor]:
    """The loss of each objective on one batch, every random choice taken from (seed, at)."""
    torch.manual_seed(hash((seed, at)) & 0x7FFFFFFF)  # dropout reads the global generator
    generator = seeded(seed * 1_000_003 + at)
    rng = np.random.default_rng((seed, at, 1))
    recommender.train()
    config = recommender.config.training
    batch = build_batch(corpus, segments, recommender.prompt_shape(_budget(recommender, rng)))
    batch = forget(batch, share=config.forget_share, generator=generator)
    context = Context(recommender, corpus, batch, negatives, rng=rng, generator=generator, bfloat16=config.bfloat16)
    with context.precision():
        states = recommender(batch)
    return {name: objective.loss(states, context) for name, objective in terms.items()}


def forget(batch: Batch, *, share: float, generator: torch.Generator) -> Batch:
    """The batch with a share of its items' identities hidden."""
    return batch._replace(
        identity_E=forget_identities(batch.identity_E, share=share, generator=generator),
        identity_C=forget_identities(batch.identity_C, share=share, generator=generator),
    )


def _budget(recommender: Recommender, rng: np.random.Generator) -> int | None:
    """Tokens of a query and of a candidate in this step: all, or for elastic tokens one of the budgets, all alike."""
    return int(rng.choice(BUDGETS)) if recommender.config.tokens.elastic else None
