import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lrm.config import TrainingConfig
from lrm.errors import ConfigError
from lrm.features.tables import read, read_declared
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.tokens.corpus import fit_vocabulary
from lrm.training.context import Context
from lrm.training.loop import fit
from lrm.training.objectives import binary_cross_entropy, objectives, weighted_sum
from lrm.training.objectives.binary_cross_entropy import positive_power
from lrm.training.targets import Targets
from tests.worlds import write_examples


def test_the_total_loss_is_the_sum_of_weight_times_loss():
    losses = {"retrieval": torch.tensor(2.0), "next_item": torch.tensor(1.0)}
    assert weighted_sum(losses, {"next_item": 3.0, "retrieval": 0.5}).item() == 4.0


def test_an_objective_that_nobody_has_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match=r"no part called 'guess'; it has binary_cross_entropy, next_item, ranking"):
        objectives(["next_item", "guess"])


@pytest.mark.parametrize("weights", [{}, {"next_item": -1.0}])
def test_weights_that_make_no_loss_are_refused(weights):
    with pytest.raises(ValueError, match="must name one objective or more, with weights of at least 0"):
        TrainingConfig(objectives=weights)


def test_an_option_that_an_objective_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ConfigError, match="'binary_cross_entropy' has no option 'negatives'; it has n_negatives, cali"):
        objectives(["binary_cross_entropy"], {"binary_cross_entropy": {"negatives": 3}})


@pytest.mark.parametrize(("calibration", "expected"), [(0.0, 1.0), (0.75, 0.4375), (1.0, 0.25)])
def test_the_power_of_gbce_runs_from_one_to_the_share_of_items_that_are_drawn(calibration, expected):
    assert positive_power(25, n_items=101, calibration=calibration) == pytest.approx(expected)


def test_binary_cross_entropy_is_that_of_the_pairs_one_by_one_and_leaves_the_item_itself_out():
    class Pairs:
        n_items = 101

        def pair_logits(self, states, events, row_P, *, n_negatives, rng):
            assert n_negatives == 2
            return torch.tensor([0.0, 1.0]), torch.tensor([[0.0, float("-inf")], [-1.0, 2.0]])

    targets = Targets(np.array([1, 2]), np.array([5, 6]), np.zeros(0), np.zeros(0), torch.zeros(0))
    context = Context(None, targets, Pairs, rng=np.random.default_rng(0))
    mean = binary_cross_entropy.loss(None, context, n_negatives=2)
    p = [0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-2))]
    expected = -(math.log(p[0]) + math.log(1 - p[0]) + math.log(p[1]) + math.log(1 - p[2]) + math.log(1 - p[3])) / 2
    assert mean.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"n_negatives": 8, "calibration": 0.75}])
def test_a_small_world_is_learned_by_pairs_alone(options, tmp_path):
    """The next item follows the last in nine of ten cases."""
    examples = write_examples(tmp_path, n_users=120)
    config, tables, signals = preset("tiny"), read(examples), read_declared(examples)
    training = replace(
        config.training,
        objectives={"binary_cross_entropy": 1.0},
        objective_options={"binary_cross_entropy": options},
        events_only=True,
        max_steps=200,
        patience=50,
        n_negatives=16,
        full_softmax_items=0,
        negatives_power=0.0,
    )
    config = replace(
        config,
        tokens=replace(config.tokens, n_query_tokens=0),
        model=replace(config.model, d_model=32, head_options={"copy_head": False}),
        training=training,
    )
    torch.manual_seed(0)
    recommender = Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens))
    fit(recommender, recommender.encode(tables), seed=0, checkpoints=None)
    test = tables.requests.filter(pl.col("split") == "test")["request_id"].to_numpy()
    scorer = Scorer(recommender, tables)
    best = scorer.item_ids[scorer.item_scores(test).argmax(1)]
    target = tables.targets.filter(pl.col("request_id").is_in(test.tolist()))["item_id"].to_numpy()
    assert (best == target).mean() > 0.5
