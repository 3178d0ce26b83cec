"""Whether a model uses every soft token that it is given: the log loss without one of them.

    python -m benchmarks.token_use [--run runs/latest] [--requests 1000]

Reads the model and the examples of a run. A token is taken away by putting its mean in its place, in every prompt: it
is still there, and says the same of everybody. Differences of log loss and AUC are paired, over the test requests of a
sample of users, with 95 % bootstrap intervals over users. A token whose loss changes nothing could be saved: fewer
query or candidate tokens would do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.command import positive, run
from benchmarks.common import keep_table, machine, markdown
from benchmarks.token_probes import folders
from lrm.errors import DataError
from lrm.evaluation.estimates import ranking_statistics
from lrm.evaluation.metrics.bootstrap import Draws, Interval, draw_users, interval, minus
from lrm.evaluation.predictions import Ranking, ranking_task
from lrm.features.tables import read
from lrm.model.artifact import load
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.progress import progress

MAKERS = {"query": "query_tokens", "event": "history_tokens", "candidate": "candidate_tokens"}
N_RESAMPLES = 1000
Change = Callable[[str, Tensor], Tensor]
"""(maker, its tokens (N, K, D)) -> the tokens that the decoder is given."""


@contextmanager
def changed(recommender: Recommender, change: Change) -> Iterator[None]:
    """Within the block, every token that the factory makes goes through `change`."""
    factory: Any = recommender.factory
    made = {maker: getattr(factory, name) for maker, name in MAKERS.items()}

    def of(maker: str) -> Callable[..., Tensor]:
        return lambda *given, **more: change(maker, made[maker](*given, **more))

    for maker, name in MAKERS.items():
        setattr(factory, name, of(maker))
    try:
        yield
    finally:
        for name in MAKERS.values():
            delattr(factory, name)  # the class's own again


def sampled(task: Ranking, n: int) -> Ranking:
    """The requests of enough users, drawn with a fixed seed, to have `n` of them or more."""
    user_of = np.zeros(task.request_ids.size, dtype=np.int64)
    user_of[task.request] = task.user
    users = np.random.default_rng(0).permutation(np.unique(user_of))
    counts = np.bincount(user_of)[users]
    chosen = users[: int(np.searchsorted(np.cumsum(counts), n)) + 1]
    rows = np.isin(task.user, chosen)
    kept, request = np.unique(task.request[rows], return_inverse=True)
    return Ranking(task.request_ids[kept], request, task.user[rows], task.item[rows], task.label[rows])


def measure(recommender: Recommender, score: Callable[[], np.ndarray], task: Ranking, draws: Draws) -> list[Any]:
    """A row for each token: its maker, its place, and what the loss of it changes."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add_up(maker: str, tokens: Tensor) -> Tensor:
        sums[maker] = sums.get(maker, torch.zeros(())) + tokens.sum(0)
        counts[maker] = counts.get(maker, 0) + len(tokens)
        return tokens

    with changed(recommender, add_up):
        whole = ranking_statistics(draws, task, score(), k=10)
    places = [(maker, place) for maker in MAKERS if counts.get(maker) for place in range(len(sums[maker]))]
    rows = []
    for maker, place in progress(places, what="tokens", unit="token"):
        mean = sums[maker][place] / counts[maker]

        def without(of: str, tokens: Tensor, maker: str = maker, place: int = place, mean: Tensor = mean) -> Tensor:
            if of != maker:
                return tokens
            parts = [tokens[:, :place], mean.expand(len(tokens), 1, -1), tokens[:, place + 1 :]]
            return torch.cat(parts, 1)

        with changed(recommender, without):
            lacking = ranking_statistics(draws, task, score(), k=10)
        changes = {name: interval(minus(lacking[name], whole[name]), confidence=0.95) for name in ("log_loss", "auc")}
        rows.append((maker, place + 1, changes["log_loss"], changes["auc"]))
    return rows


def main() -> None:
    """Print one table."""
    options, began = parsed(), time.monotonic()
    examples, model = folders(options.run)
    recommender, tables = load(model).eval(), read(examples)
    found = ranking_task(tables)
    if found is None:
        raise DataError(f"{examples} has no candidates to be scored, so that no loss can be measured")
    task = sampled(found, options.requests)
    draws = draw_users(int(task.user.max()) + 1, N_RESAMPLES, np.random.default_rng(0))
    scorer = Scorer(recommender, tables)
    rows = measure(recommender, lambda: scorer.candidate_logits(task.request_ids), task, draws)
    shown = [(maker, place, _signed(loss), _signed(auc)) for maker, place, loss, auc in rows]
    print(markdown(("token of", "place", "log loss without it", "AUC without it"), shown))
    print(f"\n{task.request_ids.size:,} requests, {task.label.size:,} candidates; ", end="")
    print(f"{machine()}; {time.monotonic() - began:.0f} s")
    keep_table("token_use", {"rows": [[*row[:2], *map(list, row[2:])] for row in rows]})


def _signed(found: Interval) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/latest"), help="a run's folder")
    parser.add_argument("--requests", type=positive, default=1000, help="test requests, about")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
