"""Items named and found by codes: every beam ends in an item, and beams that cover all items are an enumeration."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lrm.errors import ConfigError
from lrm.features.tables import read, read_declared
from lrm.model import artifact
from lrm.model.heads import ScoresAll, Wanted
from lrm.model.heads._code_trie import beam_search, build_trie
from lrm.model.heads.semantic_codes import NEVER
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer, without_candidates
from lrm.presets import preset
from lrm.tokens.corpus import fit_vocabulary
from lrm.training import loop
from tests.worlds import write_examples

REQUESTS = np.arange(40)


def trained(tables, signals, *, max_steps=1, **options):
    config = preset("tiny")
    model = replace(config.model, d_model=32, head="semantic_codes", head_options={"codes": 8} | options)
    training = replace(config.training, max_steps=max_steps, patience=max_steps, learning_rate=5e-3)
    config = replace(config, model=model, training=training)
    torch.manual_seed(0)
    recommender = Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens))
    loop.fit(recommender, without_candidates(recommender.encode(tables)), seed=0, checkpoints=None)
    return recommender.eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=60)
    return read(folder), read_declared(folder)


@pytest.fixture(scope="module")
def recommender(world):
    return trained(*world)


def listed(recommender, tables, *wanted):
    return Scorer(recommender, tables).best_items(REQUESTS, list(wanted) * (len(REQUESTS) // len(wanted)))


def test_beams_that_cover_all_items_find_what_scoring_each_finds(recommender, world):
    tables, n_items = world[0], world[0].items.height
    by_beams = listed(recommender, tables, Wanted(10))
    one_by_one = listed(recommender, tables, Wanted(10, only=np.arange(n_items)))
    for beams, each in zip(by_beams, one_by_one, strict=True):
        assert beams.rows.tolist() == each.rows.tolist()
        assert beams.scores == pytest.approx(each.scores, abs=1e-5)


def test_few_beams_give_as_many_real_items_as_were_asked_for(world):
    narrow = trained(*world, beam=1)
    for best in listed(narrow, world[0], Wanted(7)):
        assert len(np.unique(best.rows)) == 7
        assert np.isfinite(best.scores).all()
        assert (np.diff(best.scores) <= 0).all()


def test_what_is_excluded_stays_out_and_the_next_best_take_its_place(recommender, world):
    n_items = world[0].items.height
    without = np.arange(0, n_items, 2)
    whole = listed(recommender, world[0], Wanted(n_items))
    for best, all_items in zip(listed(recommender, world[0], Wanted(5, without=without)), whole, strict=True):
        expected = all_items.rows[~np.isin(all_items.rows, without)][:5]
        assert best.rows.tolist() == expected.tolist()
    few = np.arange(n_items - 2)
    for best in listed(recommender, world[0], Wanted(5, without=few)):
        assert sorted(best.rows) == [n_items - 2, n_items - 1]


def test_a_choice_is_kept_with_the_scores_of_the_catalogue(recommender, world):
    only = np.array([3, 5, 7])
    whole = listed(recommender, world[0], Wanted(world[0].items.height))
    for best, all_items in zip(listed(recommender, world[0], Wanted(9, only=only)), whole, strict=True):
        assert sorted(best.rows) == [3, 5, 7]
        score_of = dict(zip(all_items.rows.tolist(), all_items.scores, strict=True))
        assert best.scores == pytest.approx([score_of[row] for row in best.rows.tolist()], abs=1e-5)


def test_batch_mates_change_nothing(recommender, world):
    scorer = Scorer(recommender, world[0])
    together = scorer.best_items(REQUESTS, [Wanted(3 + 20 * (r % 2)) for r in REQUESTS])
    for request, best in zip(REQUESTS[:4], together, strict=False):
        (alone,) = scorer.best_items(np.array([request]), [Wanted(3 + 20 * (request % 2))])
        assert alone.rows.tolist() == best.rows.tolist()
        assert alone.scores == pytest.approx(best.scores, abs=1e-5)


def test_scores_over_kept_histories_are_those_of_one_pass(recommender, world):
    whole, kept = Scorer(recommender, world[0]), Scorer(recommender, world[0])
    kept.keep_histories(most_bytes=2**30)
    wanted = [Wanted(8)] * len(REQUESTS)
    for one, other in zip(whole.best_items(REQUESTS, wanted), kept.best_items(REQUESTS, wanted), strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_the_next_item_is_learned(world):
    """It follows the last one in nine of ten cases."""
    tables = world[0]
    recommender = trained(*world, max_steps=160)
    test = tables.requests.filter(split="test")["request_id"].to_numpy()
    best = Scorer(recommender, tables).best_items(test, [Wanted(1)] * len(test))
    target = tables.targets.filter(pl.col("request_id").is_in(test.tolist()))["item_id"].to_numpy()
    found = tables.items["item_id"].to_numpy()[[one.rows[0] for one in best]]
    assert (found == target).mean() > 0.5


def test_a_model_that_was_saved_answers_the_same(recommender, world, tmp_path):
    artifact.save(recommender, tmp_path)
    again = artifact.load(tmp_path)
    for one, other in zip(listed(again, world[0], Wanted(9)), listed(recommender, world[0], Wanted(9)), strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert np.array_equal(one.scores, other.scores)


def test_a_new_item_gets_codes_of_its_content_and_can_be_found(recommender, world):
    tables = world[0]
    new = tables.items.head(1).with_columns(item_id=pl.lit(10_000, dtype=pl.Int64))
    more = tables._replace(items=pl.concat([tables.items, new]))
    corpus = recommender.encode(more)
    codes = recommender.head.prepare(recommender.factory, corpus).code_VL
    assert codes[-1, :-1].tolist() == codes[0, :-1].tolist(), "it is like the first item"
    assert codes[-1, -1] != codes[0, -1], "and has a name of its own"
    row = len(codes) - 1
    assert all(row in best.rows for best in listed(recommender, more, Wanted(row + 1)))


def test_items_without_signals_are_coded_by_the_company_they_keep_and_a_new_one_is_not_generated(world):
    tables, _ = world
    recommender = trained(tables, ())
    new = tables.items.head(1).with_columns(item_id=pl.lit(10_000, dtype=pl.Int64))
    more = tables._replace(items=pl.concat([tables.items, new]))
    row = tables.items.height
    for best in listed(recommender, more, Wanted(row + 1)):
        assert len(best.rows) == row
        assert row not in best.rows
    named = listed(recommender, more, Wanted(1, only=np.array([row])))
    assert {best.scores[0] for best in named} == {np.float32(NEVER)}


def test_the_health_of_the_codes_is_told(recommender):
    facts = recommender.head_facts()
    assert facts["codes_of_a_level"] == 8
    assert 0.9 <= facts["codes_used_1"] <= 1
    assert 1 < facts["code_perplexity_1"] <= 8
    assert 0 <= facts["code_collisions"] < 0.5


def test_the_head_says_that_it_cannot_score_the_whole_catalogue(recommender, world):
    assert not isinstance(recommender.head, ScoresAll)
    with pytest.raises(ConfigError, match="'semantic_codes' finds the best items and cannot score the whole catalogue"):
        Scorer(recommender, world[0]).item_scores(REQUESTS)


def test_a_beam_never_enters_a_prefix_without_an_item_that_may_be_shown():
    """The likeliest first code leads to one item alone, which is excluded."""
    trie = build_trie(np.array([[0, 0], [1, 0], [1, 1]]), np.array([10, 20, 30]))
    log_p = torch.tensor([0.9, 0.1]).log()
    is_shown = np.array([[False, True, True]])
    rows, scores = beam_search(
        lambda codes: log_p.expand(1, codes.shape[1], 2), trie, n_requests=1, width=1, is_shown_RV=is_shown
    )
    assert rows.tolist() == [[20]]
    assert scores[0] == pytest.approx(np.log([0.1 * 0.9]))
