"""What pretraining the factory saves: joint steps and FLOPs until the quality of a random start is reached.

    python -m benchmarks.pretraining --data ml-100k --data-root DIR --seeds 0 1 2 3 4

For each seed, two models are trained with the same batches in the same order: one with a pretrained factory, one from
random weights. The learning rate is constant after the warm-up, so that a step is worth the same wherever training
stops. Quality is the area under the ROC curve of the validation window, looked at every few steps, of the running
average of the weights where the preset keeps one. *Parity* is the
first look at which a model is as good as the random start ever becomes. FLOPs are those of matrix products and
attention; those of pretraining are counted in. A pretrained model that never gets there counts as its last step,
marked with ">".
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import positive, run
from benchmarks.common import World, fresh, keep_table, machine, markdown, world
from lrm.config import RunConfig
from lrm.evaluation.metrics.metrics import auc
from lrm.evaluation.predictions import ranking_task
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.progress import progress
from lrm.tokens.corpus import Corpus
from lrm.training.data import TrainingData
from lrm.training.loop import update_ema
from lrm.training.losses import Losses
from lrm.training.optimizer import make_optimizer, step
from lrm.training.pretrain import pretrain


class Look(NamedTuple):
    """Quality at a point of training, and what it took to get there."""

    step: int
    flops: int
    auc: float


def learning_curve(config: RunConfig, on: World, *, seed: int, steps: int, every: int) -> list[Look]:
    """Pretrain as the configuration says, then train for `steps`, looking every few of them."""
    recommender, corpus = fresh(config, on, seed=seed)
    with FlopCounterMode(display=False) as counter:
        pretrain(recommender, corpus, seed=seed)
    spent = counter.get_total_flops()
    looks = [Look(0, spent, quality(recommender, on))]
    kept = copy.deepcopy(recommender)
    ema = kept.state_dict()
    for at, flops in enumerate(joint_steps(recommender, corpus, seed=seed, steps=steps), start=1):
        spent += flops
        update_ema(ema, recommender, decay=config.training.ema_decay, step=at)
        if at % every == 0:
            looks.append(Look(at, spent, quality(kept, on)))
    return looks


def joint_steps(recommender: Recommender, corpus: Corpus, *, seed: int, steps: int) -> Iterator[int]:
    """Train in place at a constant rate; yields the FLOPs of each step."""
    config = recommender.config.training
    data = TrainingData(corpus, recommender)
    losses, optimizer = Losses(recommender, data), make_optimizer(recommender, config)
    rows: list[np.ndarray] = []
    for at in progress(range(steps), what="joint training", total=steps, unit="step"):
        if not rows:
            segments, rows = data.epoch(np.random.default_rng((seed, at)))
        rate = config.learning_rate * min(1.0, (at + 1) / config.warmup_steps)
        with FlopCounterMode(display=False) as counter:
            total = losses.total(losses.of_step(segments.pick(rows.pop()), seed=seed, at=at))
            step(recommender, optimizer, total, rate=rate, clip=config.clip_norm, where=f"step {at}")
        yield counter.get_total_flops()


def quality(recommender: Recommender, on: World) -> float:
    """Area under the ROC curve of the validation window."""
    task = ranking_task(on.tables, split="validation")
    if task is None:
        raise SystemExit("error: these data have no candidates in the validation window; take a ranking data set")
    return auc(Scorer(recommender, on.tables).candidate_logits(task.request_ids), task.label)


def parity(looks: list[Look], goal: float) -> tuple[Look, bool]:
    """The first look as good as the goal, or the last one and False."""
    return next(((look, True) for look in looks if look.auc >= goal), (looks[-1], False))


def main() -> None:
    """Train both ways for every seed and print the table."""
    options = parsed()
    torch.set_num_threads(options.threads)
    base = preset(options.preset)
    on = world(options.data, options.data_root, users=options.users)
    batch = options.batch_tokens or base.training.batch_tokens
    first = options.pretrain_steps or base.pretrain.steps
    training, before = replace(base.training, batch_tokens=batch), replace(base.pretrain, steps=first)
    base = replace(base, training=training, pretrain=before)
    began, rows, kept, ratios = time.monotonic(), [], {}, []
    for seed in options.seeds:
        random = replace(base, pretrain=replace(base.pretrain, steps=0))
        curves = {
            name: learning_curve(config, on, seed=seed, steps=options.steps, every=options.every)
            for name, config in {"random": random, "pretrained": base}.items()
        }
        goal = max(look.auc for look in curves["random"])
        (slow, _), (quick, reached) = (parity(curves[name], goal) for name in ("random", "pretrained"))
        ratios.append((slow.step / max(1, quick.step), slow.flops / quick.flops))
        rows.append(
            (
                seed,
                f"{goal:.4f}",
                slow.step,
                f"{'' if reached else '> '}{quick.step}",
                f"{ratios[-1][0]:.1f}",
                f"{slow.flops / 1e12:.2f}",
                f"{quick.flops / 1e12:.2f}",
                f"{ratios[-1][1]:.1f}",
                f"{curves['pretrained'][0].auc:.4f}",
                f"{max(look.auc for look in curves['pretrained']):.4f}",
            )
        )
        kept[str(seed)] = {name: [look._asdict() for look in looks] for name, looks in curves.items()}
    header = ("seed", "best AUC, random", "its step", "pretrained gets there", "ratio", "TFLOPs, random", "pretrained")
    print(markdown((*header, "ratio", "AUC before step 1", "best AUC, pretrained"), rows))
    steps, flops = (float(np.median([pair[which] for pair in ratios])) for which in (0, 1))
    print(
        f"\nMedian over seeds: {steps:.1f} times fewer joint steps, {flops:.1f} times fewer FLOPs in all. "
        f"{options.data}, preset {options.preset}, {first} steps of pretraining, {options.steps} of joint training of "
        f"{batch} tokens, a look every {options.every}; "
        f"{machine()}; {time.monotonic() - began:.0f} s"
    )
    keep_table("pretraining", kept)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-100k", help="a built-in data set or a data folder")
    parser.add_argument("--data-root", type=Path, help="downloaded data sets (default: $LRM_DATA_ROOT)")
    parser.add_argument("--users", type=positive, help="a seeded sample of so many users (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--steps", type=positive, default=400, help="of joint training")
    parser.add_argument("--pretrain-steps", type=positive, help="instead of the preset's")
    parser.add_argument("--every", type=positive, default=10, help="steps between looks")
    parser.add_argument("--batch-tokens", type=positive, help="instead of the preset's")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of torch")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
