import pytest
import torch
from torch.nn import functional

from lrm.model.heads import _cross_entropy as cross_entropy
from lrm.model.heads._cross_entropy import Seen, mean_nll


@pytest.mark.parametrize("with_seen", [False, True])
def test_chunks_give_the_loss_and_gradients_of_plain_cross_entropy(with_seen, monkeypatch):
    monkeypatch.setitem(cross_entropy.CHUNK_BYTES, "cpu", 40 * 30 * 4)  # three chunks
    generator = torch.Generator().manual_seed(0)
    state_PD, item_VD = (torch.randn(n, 8, generator=generator).requires_grad_() for n in (100, 30))
    class_P = torch.randint(0, 30, (100,), generator=generator)
    bias = torch.tensor(0.7, requires_grad=True)
    is_seen_PV = (torch.rand(100, 30, generator=generator) < 0.2) & with_seen
    row_S, class_S = is_seen_PV.nonzero().unbind(1)
    offset_P = functional.pad(is_seen_PV.sum(1).cumsum(0), (1, 0))
    seen = Seen(offset_P, class_S, row_S) if with_seen else None

    loss = mean_nll(state_PD, item_VD, class_P, seen=seen, bias=bias if with_seen else None)
    plain = functional.cross_entropy(state_PD @ item_VD.T + bias * is_seen_PV, class_P)
    inputs = (state_PD, item_VD, bias) if with_seen else (state_PD, item_VD)
    assert loss.item() == pytest.approx(plain.item())
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_prediction_costs_nothing():
    assert mean_nll(torch.zeros(0, 4), torch.zeros(3, 4), torch.zeros(0, dtype=torch.long)).item() == 0.0
