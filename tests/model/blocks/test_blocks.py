"""Every block of the project obeys the rule of the prompt, whatever it computes."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from lrm.config import ModelConfig
from lrm.errors import ConfigError
from lrm.features.tables import read, read_declared
from lrm.model.blocks import PACKAGE, FixedSizeBlock, OnnxBlock, PackedBlock
from lrm.model.decoder import Decoder
from lrm.model.scoring import Scorer
from lrm.parts import own_parts
from tests.model.test_kv_cache import recommender_of
from tests.worlds import write_examples

SHAPES = {
    "as it is": {},
    "without query tokens": {"n_query_tokens": 0},
    "several tokens each": {"n_event_tokens": 2, "n_candidate_tokens": 3},
    "memory": {"memory": "linear", "memory_events": 6, "memory_tokens": 2},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=8, n_items=12, n_events=14)
    return read(folder), read_declared(folder)


@pytest.fixture(params=own_parts(PACKAGE))
def block(request):
    return request.param


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def recommender(request, world, block):
    """A model of two layers whose requests see at most five events."""
    model = {"block": block, "head_options": {"copy_head": False}, "n_layers": 2, "max_history": 5}
    return recommender_of(*world, {"model": model, "tokens": request.param})


def scores_of(scorer, requests):
    """Scores of all items, and logits of all candidates."""
    return scorer.item_scores(requests), scorer.candidate_logits(requests)


def test_scores_over_kept_histories_are_those_of_one_pass(world, recommender):
    scorer, requests = Scorer(recommender, world[0]), np.arange(96)
    whole = scores_of(scorer, requests)
    scorer.keep_histories(most_bytes=2**30)
    for kept, expected in zip(scores_of(scorer, requests), whole, strict=True):
        assert kept == pytest.approx(expected, abs=1e-4)


def test_what_happens_after_a_request_changes_nothing(world, recommender):
    tables, _ = world
    request = tables.requests.row(6, named=True)
    earlier = pl.col("event_time") < request["event_time"]
    before = tables._replace(events=tables.events.filter(earlier))
    later = pl.when(earlier).then("event_time").otherwise(pl.col("event_time") + timedelta(days=40))
    moved = tables._replace(events=tables.events.with_columns(event_time=later))
    wanted = scores_of(Scorer(recommender, tables), np.array([6]))
    for changed in (before, moved):
        for mine, expected in zip(scores_of(Scorer(recommender, changed), np.array([6])), wanted, strict=True):
            assert mine == pytest.approx(expected, abs=1e-4)


def test_a_candidate_scores_alone_as_in_company(world, recommender):
    tables, _ = world
    together = Scorer(recommender, tables).candidate_logits(np.array([7]))
    mine = tables.candidates.filter(request_id=7)
    for place, candidate in enumerate(mine["candidate_id"]):
        alone = tables._replace(candidates=tables.candidates.filter(candidate_id=candidate))
        assert Scorer(recommender, alone).candidate_logits(np.array([7])) == pytest.approx([together[place]], abs=1e-4)


def test_a_user_without_history_is_scored(world, recommender):
    nobody = world[0]._replace(events=world[0].events.clear())
    scores, logits = scores_of(Scorer(recommender, nobody), np.arange(4))
    assert np.isfinite(scores).all()
    assert np.isfinite(logits).all()


def test_the_default_makes_every_offer_and_a_block_with_a_stem_none_for_serving():
    default, sasrec = (
        Decoder(ModelConfig(block=name, d_model=8, n_heads=1, n_kv_heads=1), n_positions=9)
        for name in ("softmax_attention", "sasrec")
    )
    offers = (PackedBlock, FixedSizeBlock, OnnxBlock)
    assert [default.offers(offer) for offer in offers] == [True, True, True]
    assert [sasrec.offers(offer) for offer in offers] == [False, False, False]


def test_a_block_that_nobody_has_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"lrm.model.blocks has no part called 'mamba'; it has hstu, ligr"):
        Decoder(ModelConfig(block="mamba"), n_positions=9)


def test_an_option_that_a_block_does_not_have_is_refused_in_words():
    with pytest.raises(ConfigError, match="the block 'hstu' has no option 'depth'; it has time_bias, position_bias"):
        Decoder(ModelConfig(block="hstu", block_options={"depth": 2}), n_positions=9)


def test_heads_of_an_odd_width_are_refused_where_positions_are_rotary():
    odd = {"d_model": 6, "n_heads": 2, "n_kv_heads": 2}
    Decoder(ModelConfig(block="hstu", **odd), n_positions=9)
    with pytest.raises(ConfigError, match="d_model 6 must be an even multiple of n_heads 2: rotary positions"):
        Decoder(ModelConfig(**odd), n_positions=9)
