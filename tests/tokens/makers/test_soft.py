from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lrm.config import TokensConfig
from lrm.tokens.makers.soft import BagEmbedding, SequenceEmbedding, SoftMaker
from lrm.tokens.signals import encode
from tests.tokens.test_vocabulary import COLOUR, FITTED, PRICE, TAGS, VECTOR

SIGNALS = (PRICE, COLOUR, TAGS, VECTOR)
FRAME = pl.DataFrame(
    {
        "price": [0.0, None, 2.0],
        "colour": ["red", None, "violet"],
        "tags": [["a"], None, ["a", "b"]],
        "vector": [[0.0, 0.0], None, [1.0, 2.0]],
    }
)


@pytest.fixture
def maker() -> SoftMaker:
    torch.manual_seed(0)
    return SoftMaker(SIGNALS, FITTED, TokensConfig(width=3, n_buckets=4), n_tokens=2, d_model=8)


def tokens(maker: SoftMaker, frame: pl.DataFrame) -> torch.Tensor:
    arrays = encode(frame, SIGNALS, FITTED)
    return maker(arrays.take(np.arange(frame.height)))


def test_a_maker_gives_a_fixed_number_of_tokens_whatever_is_missing(maker):
    assert tokens(maker, FRAME).shape == (3, 2, 8)


@pytest.mark.parametrize("column", FRAME.columns)
def test_an_absent_signal_makes_another_token_than_a_present_one(maker, column):
    present = tokens(maker, FRAME[:1])
    absent = tokens(maker, FRAME[:1].with_columns(pl.lit(None, dtype=FRAME.schema[column]).alias(column)))
    assert (present - absent).abs().max() > 1e-4


def test_batch_mates_change_nothing(maker):
    alone = torch.cat([tokens(maker, FRAME[i : i + 1]) for i in range(3)])
    assert torch.allclose(tokens(maker, FRAME), alone, atol=1e-6)


def test_a_bag_is_the_mean_of_its_members():
    bag = BagEmbedding(n_categories=5, width=3)
    weight = bag.table.weight
    embedded = bag(torch.tensor([[2, 3], [2, 0], [0, 0]]))
    assert torch.allclose(embedded, torch.stack([(weight[2] + weight[3]) / 2, weight[2], weight[0]]))


def test_a_sequence_reads_its_members_in_order_and_keeps_the_latest():
    torch.manual_seed(0)
    recent = replace(TAGS, ordered=True)
    arrays = encode(pl.DataFrame({"tags": [["a", "b"], ["b", "a"], ["a", "a", "b"], None]}), [recent], FITTED)
    assert arrays.bags[0].tolist() == [[3, 2], [2, 3], [3, 2], [0, 0]]
    made = SoftMaker([recent], FITTED, TokensConfig(width=3), n_tokens=1, d_model=8)
    one, other, longer, nothing = made(arrays.take(np.arange(4)))
    assert torch.equal(one, longer)
    assert (one - other).abs().max() > 1e-4
    assert torch.allclose(made.embed(arrays.take(np.array([3])))[0, 0], made.bags[0].table.weight[0])
    assert (one - nothing).abs().max() > 1e-4


def test_masking_everything_leaves_no_trace_of_the_values(maker):
    arrays = encode(FRAME, SIGNALS, FITTED).take(np.arange(3))
    masked, is_masked = maker.mask(arrays, ratio=1.1, generator=torch.Generator().manual_seed(0))
    assert is_masked.all()
    made = maker(masked)
    assert torch.allclose(made[0], made[2], atol=1e-6)


def test_masking_nothing_changes_nothing(maker):
    arrays = encode(FRAME, SIGNALS, FITTED).take(np.arange(3))
    masked, is_masked = maker.mask(arrays, ratio=0.0, generator=torch.Generator().manual_seed(0))
    assert not is_masked.any()
    assert torch.equal(maker(masked), maker(arrays))


def test_a_group_without_signals_gets_learned_constant_tokens():
    empty = SoftMaker((), FITTED, TokensConfig(), n_tokens=2, d_model=8)
    arrays = encode(FRAME, (), FITTED).take(np.arange(3))
    assert torch.equal(empty(arrays), empty.constant_KD.expand(3, -1, -1))


def test_a_fresh_maker_tells_numbers_by_their_values_more_than_by_their_buckets():
    torch.manual_seed(0)
    config = TokensConfig(width=64, n_buckets=4)
    dense = SoftMaker((PRICE,), FITTED, config, n_tokens=1, d_model=8).dense
    buckets, values = torch.arange(1, 5).unsqueeze(1), torch.zeros(4, 1)
    by_bucket = dense(buckets, values)[:, 0].std(0).mean()
    by_value = (dense(buckets, values + 1) - dense(buckets, values)).std()
    assert 2 * by_bucket < by_value


def test_a_sequence_is_pooled_in_bfloat16_as_in_float32_up_to_rounding():
    torch.manual_seed(0)
    embedding, bag = (
        SequenceEmbedding(n_categories=5, n_places=3, width=8),
        torch.tensor([[1, 4, 2], [3, 0, 0], [0, 0, 0]]),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = embedding(bag)
    assert torch.allclose(short.float(), embedding(bag), atol=0.02)
