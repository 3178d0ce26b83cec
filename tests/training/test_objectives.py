import pytest
import torch

from lrm.config import TrainingConfig
from lrm.errors import ConfigError
from lrm.training.objectives import objectives, weighted_sum


def test_the_total_loss_is_the_sum_of_weight_times_loss():
    losses = {"retrieval": torch.tensor(2.0), "next_item": torch.tensor(1.0)}
    assert weighted_sum(losses, {"next_item": 3.0, "retrieval": 0.5}).item() == 4.0


def test_an_objective_that_nobody_has_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match=r"no part called 'guess'; it has next_item, ranking, retrieval"):
        objectives(["next_item", "guess"])


@pytest.mark.parametrize("weights", [{}, {"next_item": -1.0}])
def test_weights_that_make_no_loss_are_refused(weights):
    with pytest.raises(ValueError, match="must name one objective or more, with weights of at least 0"):
        TrainingConfig(objectives=weights)
