from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from lrm.features.tables import read
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.training import cross_entropy
from lrm.training.cross_entropy import Seen, mean_nll
from tests.worlds import write_examples


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


def test_the_sequential_preset_learns_to_leave_out_what_was_seen(tmp_path):
    """In a world where nobody chooses an item twice, the bias of items in the history goes down."""
    from lrm.model.recommender import Recommender
    from lrm.training.loop import fit

    tables = read(write_examples(tmp_path, n_users=60))
    once = tables.events.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    tables = tables._replace(events=once)
    config = preset("sequential")
    training = replace(config.training, max_steps=30, batch_tokens=512, learning_rate=1e-2, warmup_steps=2)
    config = replace(config, training=training, model=replace(config.model, max_history=16))
    torch.manual_seed(0)
    vocabulary = fit_vocabulary(tables, (), config.tokens)
    recommender = Recommender(config, (), vocabulary)
    done = fit(recommender, encode_corpus(tables, (), vocabulary), seed=0, checkpoints=None)
    losses = [loss for _, loss in done.curves["train/next_item_loss"]]
    assert losses[-1] < losses[0]
    assert recommender.seen_bias is not None
    assert recommender.seen_bias.item() < -0.1
