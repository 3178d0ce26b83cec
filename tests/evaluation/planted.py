"""A world whose signals' worth is known, and models that were trained on it for seconds."""

from dataclasses import replace

import numpy as np
import polars as pl

from lrm.evaluation.held_out import prepare
from lrm.evaluation.policy import DecisionPolicy, Policy
from lrm.evaluation.signals.feature_report import feature_report
from lrm.evaluation.signals.target_leakage import single_signals
from lrm.features.tables import read
from lrm.model.artifact import load
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.schema import Signal, write_signals
from lrm.training.run import pretrain_token_factory, train_lrm
from tests.worlds import SIGNALS, write_examples

NOISE = Signal(name="noise", kind="dense", makers=("candidate",), entity="pair", view="user_item")
COPY = Signal(name="outcome_copy", kind="dense", makers=("candidate",), entity="pair", view="user_item")
HONEST = (*(signal for signal in SIGNALS if signal.name in ("age", "colour", "affinity")), NOISE)
LEAKY = (*HONEST, COPY)


def write_planted(folder, signals, *, n_users=150, n_wrong=0.02):
    """Labels follow `affinity` (area under the curve about .8) and nothing else; `outcome_copy` errs in `n_wrong`."""
    write_examples(folder, n_users=n_users)
    rng = np.random.default_rng(7)
    table = pl.read_parquet(folder / "candidates.parquet")
    affinity = rng.normal(size=table.height)
    label = rng.random(table.height) < 1 / (1 + np.exp(-2 * affinity))
    planted = {
        "affinity": affinity,
        "label": label,
        "noise": rng.normal(size=table.height),
        "outcome_copy": label ^ (rng.random(table.height) < n_wrong),
    }
    columns = [pl.Series(name, values).cast(pl.Float32) for name, values in planted.items()]
    table.with_columns(columns).write_parquet(folder / "candidates.parquet")
    write_signals(signals, folder / "signals.json")
    return folder


def train(examples, folder):
    """A recommender of the tiny preset."""
    pretrain_token_factory(examples, folder / "factory", preset="tiny", seed=0)
    train_lrm(examples, folder / "factory", folder / "model", seed=0)
    return load(folder / "model")


def report_of(examples, recommender, **knobs):
    """The feature report of a recommender, under the tiny preset with some knobs changed."""
    config, policy = replace(preset("tiny").evaluation, **knobs), Policy(decision=DecisionPolicy(n_resamples=500))
    held_out = prepare(read(examples), recommender.signals, config, seed=0)
    scorer = Scorer(recommender, held_out.tables)
    alone = single_signals(recommender, scorer.corpus, seed=0)
    return feature_report(held_out, recommender, scorer, config, policy, alone=alone, seed=0)
