import numpy as np
import pytest
import torch
from torch.nn import functional

from lrm.config import preset, replace
from lrm.features.tables import read, read_declared
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import PromptShape
from lrm.training import cross_entropy
from lrm.training.cross_entropy import Seen, mean_nll
from lrm.training.targets import event_targets, seen_before
from lrm.training.windows import shifted_windows
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    examples = write_examples(tmp_path_factory.mktemp("world"), n_users=40)
    tables, signals = read(examples), read_declared(examples)
    return encode_corpus(tables, signals, fit_vocabulary(tables, signals, preset("tiny").tokens))


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


def test_an_epoch_of_shifted_windows_reads_each_training_event_once(corpus):
    """Users with more events than fit are cut elsewhere in another epoch; the others never."""
    epochs = [shifted_windows(corpus, max_history=8, rng=np.random.default_rng(seed)) for seed in (0, 1)]
    for segments in epochs:
        lengths = segments.end_G - segments.start_G
        assert lengths.max() <= 8
        read_events = np.concatenate([np.arange(a, b) for a, b in zip(segments.start_G, segments.end_G, strict=True)])
        assert len(np.unique(read_events)) == len(read_events)
        assert corpus.event_is_train_E[read_events].all()
        left = corpus.event_is_train_E.sum() - len(read_events)  # a window of one event would predict nothing
        assert left <= len(corpus.user_offset_U)
    assert not np.array_equal(epochs[0].start_G, epochs[1].start_G)


def test_every_event_with_a_history_is_predicted_in_some_epoch_also_where_windows_fill_up(corpus):
    n_train = corpus.event_is_train_E[: corpus.user_offset_U[1]].sum()
    assert n_train % 2 == 0
    epochs = [shifted_windows(corpus, max_history=n_train // 2, rng=np.random.default_rng(seed)) for seed in range(20)]
    firsts = [set(epoch.start_G[epoch.start_G < n_train].tolist()) for epoch in epochs]
    assert set.intersection(*firsts) <= {0}


def test_what_a_prediction_has_seen_is_its_segments_items_before_it_each_once(corpus):
    segments = shifted_windows(corpus, max_history=8, rng=np.random.default_rng(0)).pick(np.arange(5))
    batch = build_batch(corpus, segments, PromptShape(per_event=1, per_query=0, per_candidate=1, max_history=8))
    events = event_targets(batch, corpus)
    seen = seen_before(batch, corpus, events)
    for place, event in enumerate(events):
        begin, end = seen.offset_P[place : place + 2].tolist()
        start = max(segments.start_G[segments.start_G <= batch.events[event]])
        expected = set(corpus.event_row_E[start : batch.events[event]].tolist())
        assert sorted(seen.class_S[begin:end].tolist()) == sorted(expected)
        assert seen.row_S[begin:end].eq(place).all()


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
