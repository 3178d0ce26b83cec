"""What the model benchmarks share: examples, a training of one configuration, kept answers, and tables."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from local.prepare import find_data
from lrm import config as configuration
from lrm.config import RunConfig
from lrm.evaluation.metrics.bootstrap import Statistic, interval
from lrm.evaluation.metrics.metrics import Floats
from lrm.evaluation.predictions import Ranking, ranking_task
from lrm.features.datasets.prepare import DATASET
from lrm.features.run import retrieve_features
from lrm.features.tables import MANIFEST, Tables, read, read_declared, read_manifest
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.schema import USER_ID, Signal, in_use
from lrm.tokens.corpus import Corpus, fit_vocabulary
from lrm.tokens.vocabulary import Vocabulary
from lrm.training import checkpoint
from lrm.training.loop import fit
from lrm.training.pretrain import pretrain

PROJECT = Path(__file__).resolve().parent.parent
KEPT = Path("runs/benchmarks")
"""Examples and the answers of trained models, so that a benchmark that was cut short goes on where it was."""


class World(NamedTuple):
    """Examples in memory."""

    snapshot: str
    tables: Tables
    signals: tuple[Signal, ...]


class Answers(NamedTuple):
    """What one training gave and cost."""

    logits: Floats
    """One per test candidate."""
    cpu_seconds: float
    steps: int


def world(data: str, data_root: Path | None, *, users: int | None = None, seed: int = 0) -> World:
    """The examples of a data set, retrieved once; with `users`, those of a seeded sample of its users."""
    folder, repo = find_data(data, data_root)
    sources = [folder / DATASET, *sorted(repo.glob("*.py"))]
    made_of = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    examples = KEPT / folder.name / made_of
    if not (examples / MANIFEST).is_file():
        retrieve_features(folder, repo, examples)
    tables, signals = read(examples), in_use(read_declared(examples))
    snapshot = read_manifest(examples)["snapshot_id"]
    if users is None:
        return World(snapshot, tables, signals)
    known = tables.requests[USER_ID].unique().sort()
    chosen = pl.Series(np.random.default_rng(seed).choice(known.to_numpy(), min(users, len(known)), replace=False))
    return World(f"{snapshot}, {users} users, seed {seed}", _of_users(tables, chosen), signals)


def _of_users(tables: Tables, users: pl.Series) -> Tables:
    events, requests = (t.filter(pl.col(USER_ID).is_in(users.implode())) for t in (tables.events, tables.requests))
    number = requests.select("request_id", new=pl.int_range(pl.len(), dtype=requests.schema["request_id"]))

    def renumbered(table: pl.DataFrame) -> pl.DataFrame:
        joined = table.join(number, on="request_id", maintain_order="left")
        return joined.with_columns(request_id="new").drop("new")

    return tables._replace(
        events=events,
        requests=renumbered(requests),
        candidates=renumbered(tables.candidates),
        targets=renumbered(tables.targets),
    )


def fresh(config: RunConfig, on: World, *, seed: int) -> tuple[Recommender, Corpus]:
    """An untrained recommender and the corpus as its variant sees it."""
    vocabulary: Vocabulary = fit_vocabulary(on.tables, on.signals, config.tokens)
    torch.manual_seed(seed)
    recommender = Recommender(config, on.signals, vocabulary)
    recommender.check_budget()
    return recommender, recommender.encode(on.tables)


def answers(config: RunConfig, on: World, *, seed: int, budgets: tuple[int | None, ...] = (None,)) -> list[Answers]:
    """Pretrain, train and score the test candidates, once for each budget of tokens; kept, and found again later."""
    name = checkpoint.identity(on.snapshot, configuration.to_json(config), str(seed), str(budgets))
    kept = KEPT / "answers" / f"{name}.npz"
    if not kept.is_file():
        began = time.process_time()
        recommender, corpus = fresh(config, on, seed=seed)
        pretrain(recommender, corpus, seed=seed)
        done = fit(recommender, corpus, seed=seed, checkpoints=KEPT / "checkpoints" / name)
        cost = np.array([time.process_time() - began, done.step])
        requests = task_of(on).request_ids
        logits = [Scorer(recommender, on.tables, budget=budget).candidate_logits(requests) for budget in budgets]
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept.with_suffix(".partial.npz"), logits=np.stack(logits), cost=cost)
        kept.with_suffix(".partial.npz").replace(kept)
        checkpoint.discard(KEPT / "checkpoints" / name)
    with np.load(kept) as found:
        return [Answers(row, float(found["cost"][0]), int(found["cost"][1])) for row in found["logits"]]


def task_of(on: World) -> Ranking:
    """The ranking task of the test window."""
    task = ranking_task(on.tables)
    if task is None:
        raise SystemExit("error: these data have no candidates in the test window; the benchmark needs a ranking task")
    return task


def over_seeds(statistics: list[Statistic]) -> Statistic:
    """The mean of one statistic over seeds; its draws hold the users' part of the spread."""
    values, draws = [s.value for s in statistics], [s.draws for s in statistics]
    return Statistic(float(np.mean(values)), np.mean(draws, axis=0), statistics[0].n_users)


def shown(statistic: Statistic, *, sign: bool = False, digits: int = 4) -> str:
    """`.8092 [.8022, .8158]`."""
    value, low, high = (f"{x:{'+' if sign else ''}.{digits}f}" for x in interval(statistic, confidence=0.95))
    return f"{value} [{low}, {high}]"


def markdown(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine() -> str:
    """Where this runs, for the line under a table."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )


def keep_table(name: str, content: dict[str, Any]) -> None:
    """Leave the numbers behind a table as JSON, for plots and for later comparison."""
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
