"""In training an item's log-probability is told against all items, or against a sample that stands for all."""

import numpy as np
import pytest
import torch

from lrm.features.tables import read, read_declared
from lrm.model.heads._cross_entropy import Seen
from lrm.model.heads._likelihood import Negatives, SampledLearner, seen_before
from lrm.model.recommender import Recommender
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import PromptShape
from lrm.training.targets import draw_targets
from lrm.training.training_windows import shifted_windows
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=40)
    tables, signals, config = read(folder), read_declared(folder), preset("tiny")
    torch.manual_seed(0)
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    return Recommender(config, signals, vocabulary), encode_corpus(tables, signals, vocabulary)


def step(recommender, corpus, negatives, rows, *, seed):
    """A step over these targets; its prompts are not read."""
    learner = SampledLearner(recommender.head, recommender.factory, corpus, negatives)
    return learner.step(None, rows, rng=np.random.default_rng(seed))


def test_sampled_negatives_know_how_often_each_item_is_drawn():
    counts = np.array([100, 50, 10, 0])
    rows, log_q = Negatives(counts, n_negatives=2, full_up_to=0).draw(np.random.default_rng(0))
    weight = (counts + 1e-3) ** 0.75
    expected = 1 - (1 - weight / weight.sum()) ** 2
    assert log_q == pytest.approx(np.log(expected)[rows], rel=1e-5)


def test_what_was_seen_counts_as_much_in_a_sample_that_holds_every_item(model):
    recommender, corpus = model
    state, row = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), np.array([1, 5, 5])
    seen = Seen(torch.tensor([0, 2, 3, 3]), torch.tensor([1, 2, 7]), torch.tensor([0, 0, 1]))
    answers = []
    for full_up_to in (0, 10**6):
        bias = torch.tensor(-2.0, requires_grad=True)
        negatives = Negatives(np.ones(len(corpus.item_ids)), n_negatives=20_000, full_up_to=full_up_to)
        likelihood = step(recommender, corpus, negatives, row, seed=0)
        log_p = likelihood.log_p(state, row, seen, bias)
        log_p.sum().backward()
        answers.append((log_p.detach(), bias.grad))
        plain = likelihood.log_p(state, row).detach()
        assert (log_p[0] < plain[0], log_p[1] > plain[1], log_p[2] == plain[2]) == (True, True, True)
    for sampled, whole in zip(*answers, strict=True):
        assert torch.allclose(sampled, whole, atol=1e-5)


def test_a_small_catalogue_is_compared_whole():
    rows, log_q = Negatives(np.array([1, 2, 3]), n_negatives=2, full_up_to=3).draw(np.random.default_rng(0))
    assert (rows.tolist(), log_q.tolist()) == ([0, 1, 2], [0.0, 0.0, 0.0])


def test_a_large_enough_sample_estimates_the_whole_catalogue(model):
    recommender, corpus = model
    state = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    row = np.array([0, 3, 7, 7])
    counts = np.bincount(corpus.event_row_E, minlength=len(corpus.item_ids))

    def log_p(full_up_to: int, seed: int) -> torch.Tensor:
        negatives = Negatives(counts, n_negatives=25, full_up_to=full_up_to)
        likelihood = step(recommender, corpus, negatives, row, seed=seed)
        return likelihood.log_p(state, row).detach()

    sampled = torch.stack([log_p(0, seed) for seed in range(200)]).mean(0)
    assert sampled == pytest.approx(log_p(10**6, 0), abs=0.1)


def test_a_sample_that_holds_the_target_counts_it_once(model):
    """Drawn so often that every item is in the sample: the sampled answer is the whole catalogue's."""
    recommender, corpus = model
    state, row = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), np.array([1, 5])
    answers = []
    for full_up_to in (0, 10**6):
        negatives = Negatives(np.ones(len(corpus.item_ids)), n_negatives=20_000, full_up_to=full_up_to)
        likelihood = step(recommender, corpus, negatives, row, seed=0)
        answers.append(likelihood.log_p(state, row).detach())
    assert torch.allclose(*answers, atol=1e-5)


def test_what_a_prediction_has_seen_is_its_segments_items_before_it_each_once(model):
    _, corpus = model
    segments = shifted_windows(corpus, max_history=8, rng=np.random.default_rng(0)).pick(np.arange(5))
    batch = build_batch(corpus, segments, PromptShape(per_event=1, per_query=0, per_candidate=1, max_history=8))
    events = draw_targets(batch, corpus, np.random.default_rng(0)).event_P
    seen = seen_before(batch, events)
    for place, event in enumerate(events):
        begin, end = seen.offset_P[place : place + 2].tolist()
        start = max(segments.start_G[segments.start_G <= batch.events[event]])
        expected = set(corpus.event_row_E[start : batch.events[event]].tolist())
        assert sorted(seen.class_S[begin:end].tolist()) == sorted(expected)
        assert seen.row_S[begin:end].eq(place).all()
