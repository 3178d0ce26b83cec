import numpy as np
import pytest
import torch

from lrm.model.repeats import mixture, share_of_items


def test_an_items_share_is_that_of_all_its_events():
    share = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
    row = torch.tensor([[2, 0, 2, -1]])
    assert share_of_items(share, row, n_items=3)[0].tolist() == pytest.approx([0.3, 0.0, 0.7])


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
