"""One factory for every token budget: what a model trained for 1 to 16 tokens loses to models trained for each.

    python -m benchmarks.elastic --data ml-100k --data-root DIR --seeds 0 1 2

The elastic model draws a budget in every step (Matryoshka-style nesting, 2205.13147), so that the first n tokens of a
query and of a candidate are useful alone. It is scored with each budget, and each time against a model that was trained
with just so many tokens, in as many steps. *Regret* is that model's area under the ROC curve minus the elastic one's,
paired by user; the interval is of the mean over the seeds.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import positive, run
from benchmarks.common import answers, machine, markdown, over_seeds, shown, task_of, world
from benchmarks.variants import N_BOOTSTRAP
from lrm.config import BUDGETS, RunConfig
from lrm.evaluation.estimates import ranking_statistics
from lrm.evaluation.metrics.bootstrap import draw_users, minus
from lrm.presets import preset
from lrm.progress import progress


def with_tokens(base: RunConfig, n: int, *, elastic: bool) -> RunConfig:
    """The preset with `n` tokens for a query and for a candidate."""
    tokens = replace(base.tokens, n_query_tokens=n, n_candidate_tokens=n, elastic=elastic)
    return replace(base, name=f"{'elastic' if elastic else 'fixed'}-{n}", tokens=tokens)


def main() -> None:
    """Train the elastic model and one for each budget, and print the regret."""
    options = parsed()
    torch.set_num_threads(options.threads)
    base, began = preset(options.preset), time.monotonic()
    on = world(options.data, options.data_root, users=options.users)
    task = task_of(on)
    draws = draw_users(int(task.user.max()) + 1, N_BOOTSTRAP, np.random.default_rng(0))
    elastic, fixed = {n: [] for n in BUDGETS}, {n: [] for n in BUDGETS}
    for seed in progress(options.seeds, what="elastic and fixed budgets", total=len(options.seeds), unit="seed"):
        nested = answers(with_tokens(base, max(BUDGETS), elastic=True), on, seed=seed, budgets=BUDGETS)
        for n, answer in zip(BUDGETS, nested, strict=True):
            [alone] = answers(with_tokens(base, n, elastic=False), on, seed=seed)
            for found, given in ((elastic, answer), (fixed, alone)):
                found[n].append(ranking_statistics(draws, task, given.logits, k=10)["auc"])
    rows = []
    for n in BUDGETS:
        one, own = over_seeds(elastic[n]), over_seeds(fixed[n])
        rows.append((n, shown(one), shown(own), shown(minus(own, one), sign=True)))
    print(markdown(("tokens of a query and of a candidate", "elastic AUC", "trained for it", "regret"), rows))
    print(
        f"\n{options.data}, users {options.users or 'all'}, seeds {options.seeds}, preset {options.preset}; "
        f"{machine()}; {time.monotonic() - began:.0f} s, kept answers included"
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-100k", help="a built-in data set or a data folder")
    parser.add_argument("--data-root", type=Path, help="downloaded data sets (default: $LRM_DATA_ROOT)")
    parser.add_argument("--users", type=positive, help="a seeded sample of so many users (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of torch")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
