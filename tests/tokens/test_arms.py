"""What each arm may and may not know of the signals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm.config import ARMS, RunConfig, preset
from lrm.features.tables import Tables, read
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.tokens.arms import N_STRATA, as_the_arm_sees
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.training.pretrain import makers
from tests.worlds import SIGNALS, random_weights, write_examples

REQUESTS = np.arange(24)
KNOWS = ("soft", "text", "hybrid", "frozen")


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Tables:
    return read(write_examples(tmp_path_factory.mktemp("world"), n_users=12))


def arm(name: str, tables: Tables, **tokens: object) -> Recommender:
    torch.manual_seed(0)
    config: RunConfig = replace(preset("tiny"), tokens=replace(preset("tiny").tokens, arm=name, **tokens))
    return random_weights(Recommender(config, SIGNALS, fit_vocabulary(tables, SIGNALS, config.tokens)))


@pytest.mark.parametrize("name", [name for name in ARMS if name != "shuffled"])
def test_an_arm_reads_the_signals_or_is_blind_to_them_and_always_knows_the_items(name, tables):
    recommender = arm(name, tables)
    moved = tables._replace(candidates=tables.candidates.with_columns(affinity=-tables.candidates["affinity"]))
    before, after = (Scorer(recommender, seen).candidate_logits(REQUESTS) for seen in (tables, moved))
    assert (np.abs(before - after).max() > 1e-5) == (name in KNOWS)
    renamed = tables._replace(candidates=tables.candidates.with_columns(item_id=tables.candidates["item_id"].reverse()))
    assert np.abs(Scorer(recommender, renamed).candidate_logits(REQUESTS) - before).max() > 1e-5


def test_noise_is_fresh_in_every_training_step_and_the_same_in_every_scoring(tables):
    maker = arm("noise", tables).factory.candidate
    signals = encode_corpus(tables, SIGNALS, arm("noise", tables).vocabulary).candidate_C.take(np.arange(5))
    assert torch.equal(maker(signals), maker(signals))
    maker.train()
    assert not torch.equal(maker(signals), maker(signals))


def test_only_makers_that_may_learn_are_pretrained(tables):
    assert set(makers(arm("soft", tables).factory)) == {"history", "query", "candidate", "content"}
    assert not makers(arm("frozen", tables).factory)
    assert not [p for p in arm("frozen", tables).factory.history.parameters() if p.requires_grad]


def test_shuffling_exchanges_whole_rows_between_like_users_of_the_same_split(tables):
    corpus = encode_corpus(tables, SIGNALS, fit_vocabulary(tables, SIGNALS, preset("tiny").tokens))
    shuffled = as_the_arm_sees(corpus, "shuffled")
    assert as_the_arm_sees(corpus, "soft") is corpus
    for split in range(3):
        rows = corpus.split_R == split
        before = np.column_stack([corpus.query_R.value_NF[rows], corpus.query_R.sparse_NS[rows]])
        after = np.column_stack([shuffled.query_R.value_NF[rows], shuffled.query_R.sparse_NS[rows]])
        assert not np.array_equal(before, after)
        assert sorted(map(tuple, before)) == sorted(map(tuple, after))
    assert np.array_equal(shuffled.label_C, corpus.label_C)


def test_a_shuffled_candidate_takes_the_signals_of_an_item_as_popular(tables):
    config = preset("tiny").tokens
    corpus = encode_corpus(tables, SIGNALS, fit_vocabulary(tables, SIGNALS, config))
    counts = np.bincount(corpus.event_row_E[corpus.event_is_train_E], minlength=len(corpus.item_ids))
    tenth_V = np.argsort(np.argsort(counts, kind="stable"), kind="stable") * N_STRATA // len(counts)
    before, after = corpus.content_V.embeddings[0], as_the_arm_sees(corpus, "shuffled").content_V.embeddings[0]
    for tenth in range(N_STRATA):
        rows = tenth_V == tenth
        assert sorted(map(str, before[rows])) == sorted(map(str, after[rows]))


def test_text_on_a_budget_shortens_the_history_to_the_prompt_length_of_soft_tokens(tables):
    soft, text, short = arm("soft", tables), arm("text", tables), arm("text", tables, text_budget=True)

    def length(recommender: Recommender) -> int:
        shape = recommender.prompt_shape()
        return shape.max_history * shape.per_event + shape.per_query + shape.per_candidate

    assert length(text) > 10 * length(soft)
    assert short.prompt_shape().max_history == 1
    assert length(short) < length(text) / 10


def test_an_item_is_named_by_its_id_by_its_content_or_by_both(tables):
    items = {name: arm("soft", tables, item_identity=name) for name in ("id", "content", "both")}
    corpus = encode_corpus(tables, SIGNALS, items["both"].vocabulary)
    twins = corpus.content_V.take(np.array([0, 0]))
    for name, recommender in items.items():
        first, second = recommender.factory.item_vectors(torch.tensor([1, 2]), twins)
        assert torch.equal(first, second) == (name == "content")
        other = recommender.factory.item_vectors(torch.tensor([1, 1]), corpus.content_V.take(np.array([0, 1])))
        assert torch.equal(other[0], other[1]) == (name == "id")


def test_the_first_tokens_of_an_elastic_query_are_those_of_the_whole_query(tables):
    recommender = arm("soft", tables, elastic=True, n_query_tokens=4, n_candidate_tokens=4)
    assert recommender.prompt_shape(2)[:3] == (1, 2, 2)
    assert recommender.prompt_shape()[:3] == (1, 4, 4)
    signals = encode_corpus(tables, SIGNALS, recommender.vocabulary).query_R.take(np.arange(3))
    assert torch.equal(recommender.factory.query_tokens(signals, 2), recommender.factory.query_tokens(signals)[:, :2])
    few, all_of_them = (Scorer(recommender, tables, budget=n).candidate_logits(REQUESTS) for n in (1, None))
    assert np.isfinite(few).all()
    assert not np.array_equal(few, all_of_them)
