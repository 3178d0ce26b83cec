"""Leave-one-out on public sequences: our model, RecTools' SASRec and eSASRec, and two simple ones, in one run.

    python -m benchmarks.sequential --data ml-1m [--epochs 40] [--minutes 30] [--seeds 0] [--peers SASRec eSASRec]

Every model learns from the events before each user's last two, is chosen on the last but one (best epoch by masked
NDCG@10), and ranks all items for the last one, ties counting against it. `masked` leaves out the items that the user
had before, as published rows do. CPU-seconds are of training alone. `--minutes` bounds each model's CPU-minutes, so
that peers get the compute that ours gets. Intervals: 95 % bootstrap over users.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import peers
from benchmarks.command import run
from benchmarks.curves import curves_page
from lrm.config import RunConfig, to_json
from lrm.evaluation.baselines.simple import EaseMarkov, Popular
from lrm.evaluation.metrics.bootstrap import draw_users, interval, mean
from lrm.evaluation.metrics.metrics import hit_rate, ndcg, reciprocal_rank
from lrm.evaluation.predictions import (
    Histories,
    Ranks,
    Retrieval,
    Retriever,
    histories,
    rank_targets,
    retrieval_task,
)
from lrm.features.run import retrieve_features
from lrm.features.tables import MANIFEST, Tables, read, read_declared, read_manifest
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset, preset_names
from lrm.schema import EVENT_TIME, SPLIT, TEST, TRAIN, VALIDATION
from lrm.tokens.corpus import fit_vocabulary
from lrm.training import checkpoint
from lrm.training.loop import epochs as training_epochs

PROJECT = Path(__file__).resolve().parent.parent
DATA = ("ml-1m", "amazon-beauty")
N_VALIDATED = 3000
"""Validation requests at most that choose the epoch."""
CUTS = (5, 10, 20)
CURVE = "validation/masked_ndcg_by_cpu_seconds"
PEER_EPOCHS = 1000
"""A bound that `--minutes` undercuts."""


class Question(NamedTuple):
    """The data and what is asked of every model."""

    tables: Tables
    seen: Histories
    validation: Retrieval
    test: Retrieval


class Trained(NamedTuple):
    """A model's answers to the test, and what they took."""

    name: str
    ranks: Ranks
    parameters: int
    cpu_seconds: float
    epochs: int
    curve: list[tuple[float, float]]
    """CPU-seconds of training, masked NDCG@10 of the validation targets."""


def ask(examples: Path, tables: Tables) -> Question:
    """Collect the validation and test targets of an examples folder's tables."""
    rng = np.random.default_rng(0)
    validation = retrieval_task(tables, max_requests=N_VALIDATED, rng=rng, split=VALIDATION)
    test = retrieval_task(tables, max_requests=tables.requests.height, rng=rng, split=TEST)
    if validation is None or test is None:
        sys.exit(f"error: {examples} has no validation or no test targets; prepare leave-one-out data")
    return Question(tables, histories(tables), validation, test)


def answer(retriever: Retriever, question: Question, task: Retrieval, name: str) -> Ranks:
    """Rank the targets of a task."""
    return rank_targets(retriever, task, question.seen, tables=question.tables, name=name)


class Choice:
    """Keeps the weights of the epoch that is best on validation."""

    def __init__(self, question: Question, name: str, *, minutes: float) -> None:
        self.curve: list[tuple[float, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self._question, self._name, self._minutes = question, name, minutes

    def see(self, net: torch.nn.Module, retriever: Retriever, cpu_seconds: float) -> bool:
        """Validate; whether there is time to go on."""
        ranks = answer(retriever, self._question, self._question.validation, self._name)
        value = float(np.where(ranks.masked <= 10, 1 / np.log2(ranks.masked + 1.0), 0.0).mean())
        if value >= max((value for _, value in self.curve), default=0.0):
            self.best = copy.deepcopy(net.state_dict())
        self.curve.append((cpu_seconds, value))
        print(
            f"{self._name}: epoch {len(self.curve)}, {cpu_seconds:.0f} CPU-s, validation {value:.4f}", file=sys.stderr
        )
        return cpu_seconds < 60 * self._minutes


def train_ours(
    examples: Path, question: Question, config: RunConfig, *, epochs: int, minutes: float, seed: int
) -> Trained:
    """Train our model with a configuration, for so many epochs (0: as it says) and CPU-minutes at most."""
    signals = read_declared(examples)
    torch.manual_seed(seed)
    vocabulary = fit_vocabulary(question.tables, signals, config.tokens)
    if epochs:
        n_tokens = epochs * int((question.tables.events[SPLIT] == TRAIN).sum())
        steps = max(1, round(n_tokens / config.training.batch_tokens))
        config = replace(config, training=replace(config.training, max_steps=steps))
    recommender = Recommender(config, signals, vocabulary)
    corpus = recommender.encode(question.tables)
    choice = Choice(question, config.name, minutes=minutes)
    snapshot = read_manifest(examples)["snapshot_id"]
    times = str(question.tables.events[EVENT_TIME].max())
    checkpoints = checkpoint.folder_for(snapshot, to_json(config), str(seed), "benchmark", times)
    chosen = checkpoints / "chosen" if checkpoints else None
    choice.best = (checkpoint.load(chosen) or {}).get("best", {})
    seen_epochs = 0
    for state in training_epochs(recommender, corpus, seed=seed, checkpoints=checkpoints):
        if state.epoch == seen_epochs:  # the last time round, which is the best epoch again
            break
        choice.curve = [(cpu, value) for cpu, value in state.curves.get(CURVE, [])]  # whole also after a resumed run
        goes_on = choice.see(recommender, Scorer(recommender, question.tables), state.cpu_seconds)
        checkpoint.save(chosen, {"best": choice.best})
        state.curves[CURVE], seen_epochs = [list(point) for point in choice.curve], state.epoch
        if not goes_on:
            break
    recommender.load_state_dict(choice.best or recommender.state_dict())
    ranks = answer(Scorer(recommender, question.tables), question, question.test, config.name)
    checkpoint.discard(checkpoints)
    return Trained("ours", ranks, _count(recommender), choice.curve[-1][0], len(choice.curve), choice.curve)


def train_peer(name: str, question: Question, options: argparse.Namespace, *, minutes: float, seed: int) -> Trained:
    """A RecTools model of the width, depth and length of ours."""
    shape = preset(options.preset).model
    choice = Choice(question, name, minutes=minutes)

    def after_epoch(model: Any, _: int, cpu_seconds: float) -> bool:
        return choice.see(model.torch_model, peers.Peer(model, question.tables, question.seen), cpu_seconds)

    torch.manual_seed(seed)
    model = peers.fit(
        name,
        peers.interactions(question.tables),
        epochs=PEER_EPOCHS,
        after_epoch=after_epoch,
        n_factors=shape.d_model,
        n_blocks=shape.n_layers,
        n_heads=shape.n_heads,
        session_max_len=shape.max_history,
        dropout_rate=shape.dropout,
    )
    model.torch_model.load_state_dict(choice.best)
    ranks = answer(peers.Peer(model, question.tables, question.seen), question, question.test, name)
    return Trained(
        f"RecTools {name}", ranks, _count(model.torch_model), choice.curve[-1][0], len(choice.curve), choice.curve
    )


def _count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def simple(question: Question) -> Iterator[Trained]:
    """The two baselines of the evaluation step."""
    fits: dict[str, Callable[[Tables, Histories], Retriever]] = {"popular": Popular, "EASE + Markov": EaseMarkov}
    for name, build in fits.items():
        started = time.process_time()
        retriever = build(question.tables, question.seen)
        seconds = time.process_time() - started
        yield Trained(name, answer(retriever, question, question.test, name), 0, seconds, 0, [])


def table(rows: list[Trained], question: Question, *, masked: bool) -> str:
    """The Markdown table of one way to rank."""
    task, n = question.test, len(question.test.request_ids)
    draws = draw_users(int(task.user.max()) + 1, 1000, np.random.default_rng(0))
    names = [*(f"HR@{k}" for k in CUTS), *(f"NDCG@{k}" for k in CUTS), "MRR"]
    lines = [
        f"| {'masked' if masked else 'unmasked'} | parameters | CPU-s | epochs | {' | '.join(names)} |",
        "|---" * (4 + len(names)) + "|",
    ]
    for row in rows:
        ranks = row.ranks.masked if masked else row.ranks.plain
        values = [hit_rate(ranks, task.request, n_requests=n, k=k) for k in CUTS]
        values += [ndcg(ranks, task.request, n_requests=n, k=k) for k in CUTS]
        values.append(reciprocal_rank(ranks, task.request, n_requests=n))
        cells = []
        for name, value in zip(names, values, strict=True):
            found = interval(mean(draws, task.user, value), confidence=0.95)
            bounds = f" [{found.low:.4f}, {found.high:.4f}]" if "@10" in name else ""
            cells.append(f"{found.value:.4f}{bounds}")
        about = f"{row.parameters:,} | {row.cpu_seconds:.0f} | {row.epochs or ''}"
        lines.append(f"| {row.name} | {about} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, rank, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, default=DATA[0])
    parser.add_argument("--preset", choices=preset_names(), default="sequential")
    parser.add_argument("--epochs", type=int, default=0, help="of ours; 0: as the preset says")
    parser.add_argument("--minutes", type=float, default=math.inf, help="CPU-minutes of training for each model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--peers", nargs="*", choices=peers.PEERS, default=list(peers.PEERS))
    parser.add_argument("--examples", type=Path, help="an examples folder of the same data; default: made anew")
    parser.add_argument(
        "--curves", type=Path, help="where to write the learning curves (.html) and their numbers (.json)"
    )
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    if options.curves:  # before hours of training, so that a place that cannot be is known first
        options.curves.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        examples = options.examples or Path(place)
        if not (examples / MANIFEST).is_file():
            feature_repo = PROJECT / "examples" / options.data / "feature_repo"
            retrieve_features(PROJECT / "data" / options.data, feature_repo, examples)
        question = ask(examples, read(examples))
        rows = list(simple(question))
        for seed in options.seeds:
            config = preset(options.preset)
            rows.append(
                train_ours(examples, question, config, epochs=options.epochs, minutes=options.minutes, seed=seed)
            )
            minutes = min(options.minutes, rows[-1].cpu_seconds / 60)
            rows += [train_peer(name, question, options, minutes=minutes, seed=seed) for name in options.peers]
    print(f"{options.data}, preset {options.preset}, seeds {options.seeds}, {torch.get_num_threads()} thread(s)\n")
    print(table(rows, question, masked=True), table(rows, question, masked=False), sep="\n\n")
    if options.curves:
        curves = {row.name: row.curve for row in rows if row.curve}
        options.curves.with_suffix(".json").write_text(json.dumps(curves) + "\n")
        options.curves.with_suffix(".html").write_text(curves_page(f"{options.data}, validation", curves))


if __name__ == "__main__":
    run(main)
