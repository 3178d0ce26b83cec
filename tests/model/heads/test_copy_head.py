import numpy as np
import pytest
import torch

from lrm.model.heads._copy_head import mixture, raised, share_of_items


def test_an_items_share_is_that_of_all_its_events():
    share = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
    row = torch.tensor([[2, 0, 2, -1]])
    assert share_of_items(share, row, n_items=3)[0].tolist() == pytest.approx([0.3, 0.0, 0.7])


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_weight_of_an_items_events_together_is_raised_to_the_power(power):
    share = torch.tensor([[0.3, 0.5, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    first = torch.tensor([[0, 1, 0, 1], [0, 1, 0, 3]])  # the fourth event is hidden: it has no share
    exponent = torch.tensor(power, requires_grad=True)
    found = raised(share, first, exponent)
    assert found[0, [0, 2]].sum().item() == pytest.approx(0.5), "two items of like weight stay so"
    assert found[0, 0].item() == pytest.approx(0.3), "the events of an item keep their proportion"
    assert found[1].tolist() == [0.0] * 4, "who sees nothing points nowhere"
    found[0, 0].backward()
    assert share.grad.isfinite().all()
    assert exponent.grad.isfinite()


def test_a_power_above_one_favours_what_was_chosen_often():
    share, first = torch.tensor([[0.25, 0.25, 0.5 / 3, 0.5 / 3, 0.5 / 3]]), torch.tensor([[0, 1, 2, 2, 2]])
    once, often = (raised(share, first, torch.tensor(power))[0, 2:].sum().item() for power in (1.0, 2.0))
    assert once == pytest.approx(0.5)
    assert often == pytest.approx(0.25 / (0.25 + 2 * 0.0625))


def test_a_mixture_of_two_distributions_is_a_distribution():
    generated = torch.tensor([[0.2, 0.3, 0.5]]).log()
    pointed = torch.tensor([[0.0, 1.0, 0.0]])
    mixed = mixture(generated, pointed, torch.tensor([[np.log(3.0)]])).exp()
    assert mixed[0].tolist() == pytest.approx([0.05, 0.25 * 0.3 + 0.75, 0.125], abs=1e-6)


def test_nothing_pointed_at_leaves_finite_gradients():
    generated = torch.zeros(1, 2, requires_grad=True)
    pointed, gate = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    mixture(generated, pointed, gate).sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (generated, pointed, gate))
