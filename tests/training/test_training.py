import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrm.errors import TrainingDiverged
from lrm.evaluation.metrics.metrics import auc
from lrm.evaluation.predictions import ranking_task
from lrm.features.tables import Tables, read, read_declared
from lrm.model import artifact
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import PRESETS, preset
from lrm.tokens.corpus import Corpus, encode_corpus, fit_vocabulary
from lrm.tokens.memmap import memory_mapped
from lrm.training import checkpoint, loop
from lrm.training.optimizer import learning_rate, make_optimizer, step
from lrm.training.pretrain import pretrain
from lrm.training.run import pretrain_token_factory, train_lrm
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("world"), n_users=120)


def build(world: Path, **training: float) -> tuple[Recommender, Corpus, Tables]:
    """A fresh small recommender; the same weights every time."""
    torch.manual_seed(0)
    config = preset("tiny")
    config = replace(config, model=replace(config.model, d_model=32), training=replace(config.training, **training))
    tables, signals = read(world), read_declared(world)
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    return Recommender(config, signals, vocabulary), encode_corpus(tables, signals, vocabulary), tables


def test_a_small_world_is_learned_in_both_tasks(world):
    """The next item follows the last in nine of ten cases; a candidate's outcome hangs on one pair signal."""
    recommender, corpus, tables = build(world, max_steps=80, patience=20, learning_rate=5e-3)
    loop.fit(recommender, corpus, seed=0, checkpoints=None)
    test = np.flatnonzero(corpus.split_R == 2)
    scorer = Scorer(recommender, tables)
    best = scorer.item_ids[scorer.item_scores(test).argmax(1)]
    target = tables.targets.filter(pl.col("request_id").is_in(test.tolist()))["item_id"].to_numpy()
    assert (best == target).mean() > 0.7
    label = tables.candidates.filter(pl.col("request_id").is_in(test.tolist()))["label"].to_numpy()
    logit = scorer.candidate_logits(test)
    assert (logit[label == 1][:, None] > logit[label == 0]).mean() > 0.9


@contextmanager
def interrupted_at_step(at: int) -> Iterator[None]:
    """Interrupt the process when an optimizer is about to take the step of this number, from 0."""
    numbers = count()

    def interrupt(*_) -> None:
        if next(numbers) == at:
            raise KeyboardInterrupt

    hook = register_optimizer_step_pre_hook(interrupt)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_resumed_training_ends_exactly_where_unbroken_training_does(ema_decay, world, tmp_path):
    unbroken, corpus, _ = build(world, max_steps=8, checkpoint_every_steps=3, ema_decay=ema_decay)
    done = loop.fit(unbroken, corpus, seed=7, checkpoints=None)

    killed, corpus, _ = build(world, max_steps=8, checkpoint_every_steps=3, ema_decay=ema_decay)
    with interrupted_at_step(5), pytest.raises(KeyboardInterrupt):
        loop.fit(killed, corpus, seed=7, checkpoints=tmp_path)
    resumed, corpus, _ = build(world, max_steps=8, checkpoint_every_steps=3, ema_decay=ema_decay)
    again = loop.fit(resumed, corpus, seed=7, checkpoints=tmp_path)

    assert again.curves == done.curves
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_loss_that_is_not_finite_stops_before_the_weights_move():
    model = torch.nn.Linear(2, 1)
    before = model.weight.clone()
    optimizer = make_optimizer(model, preset("tiny").training)
    loss = model(torch.ones(1, 2)).sum() * float("nan")
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 3 \(epoch 1, batch 2\); .*: none"):
        step(model, optimizer, loss, rate=0.1, clip=1.0, where="step 3 (epoch 1, batch 2)")
    assert torch.equal(model.weight, before)


def test_a_weight_that_is_not_finite_is_named():
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.bias.fill_(float("inf"))
    optimizer = make_optimizer(model, preset("tiny").training)
    with pytest.raises(TrainingDiverged, match="the loss is inf at step 0; parameter groups that are not finite: bias"):
        step(model, optimizer, model(torch.ones(1, 2)).sum(), rate=0.1, clip=1.0, where="step 0")


def test_a_validation_loss_that_is_not_a_number_stops_the_run(world):
    recommender, corpus, _ = build(world)
    label_C = corpus.label_C.copy()
    for request in np.flatnonzero(corpus.split_R == 1):
        label_C[corpus.candidate_offset_R[request] : corpus.candidate_offset_R[request + 1]] = np.nan
    corpus = replace(corpus, label_C=label_C)
    with pytest.raises(TrainingDiverged, match="the validation loss is not a number after epoch 1"):
        loop.fit(recommender, corpus, seed=0, checkpoints=None)


def test_a_gradient_that_is_not_finite_names_its_parameter_group():
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.zero_()
    optimizer = make_optimizer(model, preset("tiny").training)
    loss = model.weight.abs().sqrt().sum()  # finite at zero, with an infinite slope
    with pytest.raises(TrainingDiverged, match="parameter group 'weight' is not finite at step 0"):
        step(model, optimizer, loss, rate=0.1, clip=1.0, where="step 0")
    assert model.weight.item() == 0.0


def test_the_learning_rate_warms_up_then_falls_to_a_tenth():
    config = replace(preset("tiny").training, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(at, total_steps=110, config=config) for at in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1])


def test_pretraining_lowers_each_of_its_losses(world):
    recommender, corpus, _ = build(world)
    recommender.config = replace(recommender.config, pretrain=replace(preset("tiny").pretrain, steps=120))
    curves = pretrain(recommender, corpus, seed=0)
    tasks = ("masked_signals", "cooccurrence", "next_item", "outcome")
    assert set(curves) == {f"pretrain/{task}" for task in tasks}
    for name, series in curves.items():
        values = [value for _, value in series]
        assert np.mean(values[-10:]) < 0.95 * np.mean(values[:10]), name


def test_a_pretrained_recommender_already_ranks_before_its_decoder_has_learned_anything(world):
    """The planted answer is the pair signal `affinity` alone, which one token can carry."""
    recommender, corpus, tables = build(world)
    recommender.config = replace(recommender.config, pretrain=replace(preset("tiny").pretrain, steps=120))
    task = ranking_task(tables)
    assert auc(Scorer(recommender, tables).candidate_logits(task.request_ids), task.label) < 0.7
    pretrain(recommender, corpus, seed=0)
    assert auc(Scorer(recommender, tables).candidate_logits(task.request_ids), task.label) > 0.9


def test_the_doors_write_a_model_that_loads_and_the_same_seed_gives_the_same_weights(world, tmp_path, monkeypatch):
    """Bit for bit."""
    monkeypatch.setenv(checkpoint.CHECKPOINT_ROOT, str(tmp_path / "checkpoints"))
    for run in ("a", "b"):
        pretrain_token_factory(world, tmp_path / run / "factory", preset="tiny", seed=3)
        metrics = train_lrm(world, tmp_path / run / "factory", tmp_path / run / "model", seed=3)
    assert metrics["parameters"] > metrics["factory_parameters"] > 0
    first, second = (artifact.load(tmp_path / run / "model").state_dict() for run in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "validation/ranking_loss" in json.loads((tmp_path / "a" / "model" / "curves.json").read_text())
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_corpus_in_files_gives_the_same_weights_as_one_in_memory(world, tmp_path):
    in_memory, corpus, _ = build(world, max_steps=4)
    in_files, _, _ = build(world, max_steps=4)
    loop.fit(in_memory, corpus, seed=3, checkpoints=None)
    loop.fit(in_files, memory_mapped(corpus, tmp_path, from_bytes=1), seed=3, checkpoints=None)
    assert all(torch.equal(weight, in_files.state_dict()[name]) for name, weight in in_memory.state_dict().items())


def test_a_model_is_trained_with_the_configuration_of_its_factory_even_if_the_preset_has_changed_since(
    world, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRESETS, "passing", PRESETS["tiny"])
    pretrain_token_factory(world, tmp_path / "factory", preset="passing")
    monkeypatch.setitem(PRESETS, "passing", PRESETS["default"])
    train_lrm(world, tmp_path / "factory", tmp_path / "model")
    assert artifact.load(tmp_path / "model").config == replace(preset("tiny"), name="passing")


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_a_table_with_sparse_gradients_moves_its_read_rows_alone_and_is_clipped_like_a_dense_one(limit):
    torch.manual_seed(0)
    tables = [torch.nn.Embedding(10, 3, sparse=is_sparse) for is_sparse in (False, True)]
    tables[1].load_state_dict(tables[0].state_dict())
    before = tables[0].weight.detach().clone()
    norms = []
    for table in tables:
        model = torch.nn.Sequential(table, torch.nn.Linear(3, 1, bias=False))
        model[1].weight.data.fill_(1.0)
        loss = model(torch.tensor([4, 4, 7])).pow(2).sum()
        optimizer = make_optimizer(model, preset("tiny").training)
        norms.append(step(model, optimizer, loss, rate=0.1, clip=limit, where="step 0"))
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    assert torch.allclose(tables[0].weight, tables[1].weight, atol=1e-6)
    moved = (tables[1].weight != before).any(1)
    assert moved.nonzero().flatten().tolist() == [4, 7]
