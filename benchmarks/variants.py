"""Quality of every variant on a ranking task: do soft tokens carry what the signals know, and is it more than capacity?

    python -m benchmarks.variants --data ml-100k --data-root DIR --seeds 0 1 2 3 4
    python -m benchmarks.variants --data complete-journey --users 200 --variants soft none shuffled

Every variant has the same decoder, the same batches in the same order and the same seeds. A difference is paired by
user: its interval comes from drawing users again, and is of the mean over the seeds. The margin for "soft is not worse
than text" was set beforehand: .002 of the area under the ROC curve.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import positive, run
from benchmarks.common import World, answers, fresh, machine, markdown, over_seeds, shown, task_of, world
from lrm.config import VARIANTS, RunConfig
from lrm.errors import SchemaError
from lrm.evaluation.baselines.trees import Trees
from lrm.evaluation.estimates import ranking_statistics
from lrm.evaluation.metrics.bootstrap import Statistic, draw_users, minus
from lrm.presets import preset
from lrm.progress import progress
from lrm.training.data import TrainingData

SOFT, TRUNCATED, TREES = "soft", "text-truncated", "trees"
N_BOOTSTRAP = 1000


def configured(base: RunConfig, variant: str, *, epochs: float, on: World) -> RunConfig:
    """The variant with this backbone, for about so many epochs."""
    kind = "text" if variant == TRUNCATED else variant
    config = replace(base, name=variant, tokens=replace(base.tokens, variant=kind, text_budget=variant == TRUNCATED))
    recommender, corpus = fresh(config, on, seed=0)
    tokens = TrainingData(corpus, recommender).n_tokens(seed=0)
    steps = max(1, round(epochs * tokens / config.training.batch_tokens))
    return replace(config, training=replace(config.training, max_steps=steps))


def main() -> None:
    """Train, score, compare, print."""
    options = parsed()
    torch.set_num_threads(options.threads)
    base = backbone(options)
    on = world(options.data, options.data_root, users=options.users)
    task = task_of(on)
    draws = draw_users(int(task.user.max()) + 1, N_BOOTSTRAP, np.random.default_rng(0))
    found: dict[str, list[dict[str, Statistic]]] = {}
    cost: dict[str, float] = {}
    configs = {variant: configured(base, variant, epochs=options.epochs, on=on) for variant in options.variants}
    plan = [(variant, seed) for seed in options.seeds for variant in options.variants]
    began = time.monotonic()
    for variant, seed in progress(plan, what="train variants", total=len(plan), unit="model"):
        [answer] = answers(configs[variant], on, seed=seed)
        found.setdefault(variant, []).append(ranking_statistics(draws, task, answer.logits, k=10))
        cost[variant] = cost.get(variant, 0.0) + answer.cpu_seconds / len(options.seeds)
    if options.trees:
        trees = Trees(on.tables, on.signals, n_trees=base.evaluation.n_trees, seed=0)
        found[TREES] = [ranking_statistics(draws, task, trees.candidate_logits(task.request_ids), k=10)]
    means = {
        variant: {m: over_seeds([s[m] for s in of_seed]) for m in of_seed[0]} for variant, of_seed in found.items()
    }
    rows = [
        (
            f"`{variant}`",
            shown(values["auc"]),
            shown(minus(means[SOFT]["auc"], values["auc"]), sign=True) if variant != SOFT and SOFT in means else "",
            shown(values["ndcg@10"]),
            f"{np.std([s['auc'].value for s in found[variant]]):.4f}",
            f"{cost[variant]:.0f}" if variant in cost else "",
        )
        for variant, values in means.items()
    ]
    header = ("variant", "AUC", "soft minus it", "NDCG@10", "sd over seeds", "CPU-s a model")
    print(markdown(header, rows))
    print(
        f"\n{options.data}, users {options.users or 'all'}, seeds {options.seeds}, {options.epochs} epochs at most, "
        f"d{base.model.d_model} L{base.model.n_layers}, {base.model.max_history} events; {machine()}; "
        f"{time.monotonic() - began:.0f} s, kept answers included"
    )


def backbone(options: argparse.Namespace) -> RunConfig:
    """The preset with what the command line changes."""
    base = preset(options.preset)
    wider = {"d_model": options.d_model, "n_layers": options.layers, "max_history": options.max_history}
    try:
        model = replace(base.model, **{name: value for name, value in wider.items() if value})
    except ValueError as error:
        raise SchemaError(str(error)) from error
    batch = options.batch_tokens or base.training.batch_tokens
    return replace(base, model=model, training=replace(base.training, batch_tokens=batch))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-100k", help="a built-in data set or a data folder")
    parser.add_argument("--data-root", type=Path, help="downloaded data sets (default: $LRM_DATA_ROOT)")
    parser.add_argument("--users", type=positive, help="a seeded sample of so many users (default: all)")
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=[*VARIANTS, TRUNCATED], help="default: all"
    )
    parser.add_argument("--trees", action="store_true", help="add gradient-boosted trees on the same signals")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=float, default=10, help="at most; early stopping on validation (default 10)")
    parser.add_argument("--preset", default="default", help="the backbone (default: default)")
    parser.add_argument("--d-model", type=positive, help="instead of the preset's")
    parser.add_argument("--layers", type=positive, help="instead of the preset's")
    parser.add_argument("--max-history", type=positive, help="instead of the preset's")
    parser.add_argument("--batch-tokens", type=positive, help="instead of the preset's")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of torch")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
