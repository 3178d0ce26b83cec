"""What each variant may and may not know of the signals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm.config import VARIANTS, RunConfig
from lrm.errors import ConfigError
from lrm.features.tables import Tables, read
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.makers import as_variant_sees
from lrm.training.loop import fit
from lrm.training.pretrain import makers
from tests.worlds import SIGNALS, random_weights, write_examples

REQUESTS = np.arange(24)
KNOWS = ("soft", "text", "hybrid", "frozen")


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Tables:
    return read(write_examples(tmp_path_factory.mktemp("world"), n_users=12))


def variant(name: str, tables: Tables, **tokens: object) -> Recommender:
    torch.manual_seed(0)
    config: RunConfig = replace(preset("tiny"), tokens=replace(preset("tiny").tokens, variant=name, **tokens))
    return random_weights(Recommender(config, SIGNALS, fit_vocabulary(tables, SIGNALS, config.tokens)))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("shuffled", "noise")])
def test_a_variant_reads_the_signals_or_is_blind_to_them_and_always_knows_the_items(name, tables):
    recommender = variant(name, tables)
    moved = tables._replace(candidates=tables.candidates.with_columns(affinity=-tables.candidates["affinity"]))
    before, after = (Scorer(recommender, seen).candidate_logits(REQUESTS) for seen in (tables, moved))
    assert (np.abs(before - after).max() > 1e-5) == (name in KNOWS)
    renamed = tables._replace(candidates=tables.candidates.with_columns(item_id=tables.candidates["item_id"].reverse()))
    assert np.abs(Scorer(recommender, renamed).candidate_logits(REQUESTS) - before).max() > 1e-5


def test_noise_is_fresh_in_every_training_step_and_in_scoring_a_rows_own_wherever_it_stands(tables):
    maker = variant("noise", tables).factory.candidate
    candidates = encode_corpus(tables, SIGNALS, variant("noise", tables).vocabulary).candidate_C
    some, turned = candidates.take(np.arange(5)), candidates.take(np.arange(5)[::-1].copy())
    assert torch.equal(maker.embed(some), maker.embed(turned).flip(0))
    assert torch.equal(maker.embed(candidates.take(np.array([3]))), maker.embed(some)[3:4])
    maker.train()
    assert not torch.equal(maker.embed(some), maker.embed(some))


def test_the_noise_of_scoring_is_normal_and_another_one_for_nearly_every_other_content(tables):
    maker = variant("noise", tables).factory.candidate
    candidates = encode_corpus(tables, SIGNALS, variant("noise", tables).vocabulary).candidate_C
    with torch.no_grad():
        noise = maker.embed(candidates.take(np.arange(800))).flatten(1).numpy()
    assert (noise.mean(), noise.std()) == pytest.approx((0.0, 1.0), abs=0.05)
    parts = (candidates.bucket_NF, candidates.sparse_NS, *candidates.bags, np.nan_to_num(candidates.embeddings[0]))
    n_contents = len(np.unique(np.column_stack([part[:800] for part in parts]), axis=0))
    assert 0.8 * n_contents < len(np.unique(noise, axis=0)) <= n_contents


def test_only_makers_that_may_learn_are_pretrained(tables):
    assert set(makers(variant("soft", tables).factory)) == {"history", "query", "candidate", "content"}
    assert not makers(variant("frozen", tables).factory)
    assert not [p for p in variant("frozen", tables).factory.history.parameters() if p.requires_grad]


def test_shuffling_exchanges_whole_rows_between_like_users_of_the_same_split(tables):
    vocabulary = fit_vocabulary(tables, SIGNALS, preset("tiny").tokens)
    corpus = encode_corpus(tables, SIGNALS, vocabulary)
    shuffled = as_variant_sees(corpus, preset("shuffled").tokens, vocabulary)
    assert as_variant_sees(corpus, preset("soft").tokens, vocabulary) is corpus
    for split in range(3):
        rows = corpus.split_R == split
        before = np.column_stack([corpus.query_R.value_NF[rows], corpus.query_R.sparse_NS[rows]])
        after = np.column_stack([shuffled.query_R.value_NF[rows], shuffled.query_R.sparse_NS[rows]])
        assert not np.array_equal(before, after)
        assert sorted(map(tuple, before)) == sorted(map(tuple, after))
    assert np.array_equal(shuffled.label_C, corpus.label_C)


def on_a_budget(tables: Tables, *, max_history: int) -> Recommender:
    tiny = preset("tiny")
    tokens, model = replace(tiny.tokens, variant="text", text_budget=True), replace(tiny.model, max_history=max_history)
    return Recommender(replace(tiny, tokens=tokens, model=model), SIGNALS, fit_vocabulary(tables, SIGNALS, tokens))


def test_text_on_a_budget_is_never_longer_than_soft_tokens_and_refused_where_it_cannot_be(tables):
    whole = variant("text", tables).prompt_shape()
    assert whole.max_history * whole.per_event > 10 * (32 + 2 + 1)
    shortest = whole.per_event + whole.per_query + whole.per_candidate
    least = shortest - 2 - 1  # soft tokens: one for each event, two for the query, one for the candidate
    for max_history, n_events in ((least, 1), (least + whole.per_event - 1, 1), (least + whole.per_event, 2)):
        recommender = on_a_budget(tables, max_history=max_history)
        recommender.check_budget()
        shape = recommender.prompt_shape()
        assert shape.max_history == n_events
        assert n_events * shape.per_event + shape.per_query + shape.per_candidate <= max_history + 2 + 1
    short = on_a_budget(tables, max_history=least - 1)
    with pytest.raises(ConfigError, match=f"with max_history {least - 1}; .* needs a max_history of {least} or more"):
        short.check_budget()
    with pytest.raises(ConfigError, match="is longer than a prompt of soft tokens"):
        fit(short, encode_corpus(tables, SIGNALS, short.vocabulary), seed=0, checkpoints=None)
    assert np.isfinite(Scorer(short, tables).candidate_logits(REQUESTS)).all()  # one of an older version still serves
    variant("text", tables).check_budget()


def test_an_item_is_named_by_its_id_by_its_content_or_by_both(tables):
    items = {name: variant("soft", tables, item_identity=name) for name in ("id", "content", "both")}
    corpus = encode_corpus(tables, SIGNALS, items["both"].vocabulary)
    twins = corpus.content_V.take(np.array([0, 0]))
    for name, recommender in items.items():
        first, second = recommender.factory.item_vectors(torch.tensor([1, 2]), twins)
        assert torch.equal(first, second) == (name == "content")
        other = recommender.factory.item_vectors(torch.tensor([1, 1]), corpus.content_V.take(np.array([0, 1])))
        assert torch.equal(other[0], other[1]) == (name == "id")


def test_the_first_tokens_of_an_elastic_query_are_those_of_the_whole_query(tables):
    recommender = variant("soft", tables, elastic=True, n_query_tokens=4, n_candidate_tokens=4)
    assert recommender.prompt_shape(2)[:3] == (1, 2, 2)
    assert recommender.prompt_shape()[:3] == (1, 4, 4)
    signals = encode_corpus(tables, SIGNALS, recommender.vocabulary).query_R.take(np.arange(3))
    assert torch.equal(recommender.factory.query_tokens(signals, 2), recommender.factory.query_tokens(signals)[:, :2])
    few, all_of_them = (Scorer(recommender, tables, budget=n).candidate_logits(REQUESTS) for n in (1, None))
    assert np.isfinite(few).all()
    assert not np.array_equal(few, all_of_them)
