"""What training is stopping_value by is what evaluation would say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm.features.tables import read, read_declared
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer, without_candidates
from lrm.presets import preset
from lrm.tokens.corpus import Corpus, encode_corpus, fit_vocabulary
from lrm.training import loop
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.validation import stopping_value, validate
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("world"), n_users=60)


def validated(recommender: Recommender, corpus: Corpus) -> dict[str, float]:
    data = TrainingData(corpus, recommender)
    return validate(recommender, data, Losses(recommender, data))


def test_ndcg_in_validation_is_that_of_the_scores_of_every_item(examples):
    torch.manual_seed(0)
    config, tables, signals = preset("tiny"), read(examples), read_declared(examples)
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    recommender, corpus = (
        Recommender(config, signals, vocabulary),
        without_candidates(encode_corpus(tables, signals, vocabulary)),
    )
    loop.fit(recommender, corpus, seed=0, checkpoints=None)
    gain = 1 / np.log2(np.arange(2, 12))
    expected = []
    asked = np.flatnonzero((corpus.split_R == 1) & (np.diff(corpus.target_offset_R) > 0))
    for request, scores in zip(asked, Scorer(recommender, tables).item_scores(asked), strict=True):
        targets = corpus.target_row_T[corpus.target_offset_R[request] : corpus.target_offset_R[request + 1]]
        is_target = np.isin(np.argsort(-scores, kind="stable")[:10], targets)
        expected.append(gain[is_target].sum() / gain[: len(targets)].sum())
    measured = validated(recommender, corpus)
    assert measured["retrieval_ndcg"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert 0.1 < measured["retrieval_ndcg"] < 1


def test_the_loss_of_a_request_is_that_of_the_scores_of_its_targets_where_what_was_seen_counts_less(examples):
    torch.manual_seed(0)
    config, tables, signals = preset("tiny"), read(examples), read_declared(examples)
    config = replace(config, model=replace(config.model, head_options={"copy_head": False}))
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    recommender, corpus = Recommender(config, signals, vocabulary), encode_corpus(tables, signals, vocabulary)
    recommender.head.seen.data.fill_(-0.5)
    asked = np.flatnonzero((corpus.split_R == 1) & (np.diff(corpus.target_offset_R) > 0))
    expected = [
        -scores[corpus.target_row_T[corpus.target_offset_R[request] : corpus.target_offset_R[request + 1]]].mean()
        for request, scores in zip(asked, Scorer(recommender, tables).item_scores(asked), strict=True)
    ]
    measured = validated(recommender, corpus)
    assert measured["retrieval_loss"] == pytest.approx(np.mean(expected), abs=1e-5)


def test_the_ranking_decides_and_where_nothing_is_ranked_what_is_retrieved():
    assert stopping_value({"ranking_loss": 0.4, "retrieval_loss": 7.0, "retrieval_ndcg": 0.3}) == 0.4
    assert stopping_value({"retrieval_loss": 8.0, "retrieval_ndcg": 0.3}) < stopping_value(
        {"retrieval_loss": 7.0, "retrieval_ndcg": 0.2}
    )
    assert stopping_value({}) == math.inf


def test_epochs_that_are_equally_good_are_no_better(examples):
    config, tables, signals = preset("tiny"), read(examples), read_declared(examples)
    still = replace(config.training, learning_rate=1e-30)  # no weight moves
    config = replace(config, training=still)
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    recommender, corpus = Recommender(config, signals, vocabulary), encode_corpus(tables, signals, vocabulary)
    done = loop.fit(recommender, corpus, seed=0, checkpoints=None)
    assert (done.best_epoch, done.epoch) == (0, config.training.patience + 1)
