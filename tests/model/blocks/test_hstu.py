"""HSTU's equation, and what it is told of time."""

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
import torch

from lrm.config import ModelConfig
from lrm.errors import ConfigError
from lrm.model.blocks.hstu import Block, time_bucket
from lrm.model.scoring import Scorer
from lrm.tokens.corpus import encode_corpus
from lrm.tokens.layout import lay_out
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import PromptShape, Segments
from tests.model.test_kv_cache import recommender_of

HSTU = {"block": "hstu", "head_options": {"copy_head": False}, "n_layers": 2}
WITHOUT_QUERY = {"model": HSTU, "tokens": {"n_query_tokens": 0}}


def silu(x):
    return x / (1 + np.exp(-x))


def normed(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def by_hand(block, x_ND, position_N, own_N, asking_N, sees_NN):
    """One layer of one head, token by token, as the paper writes it."""
    weight, out = block.uvqk.weight.detach().double().numpy(), block.out.weight.detach().double().numpy()
    time, position = (table.detach().double().numpy() for table in (block.time_bias, block.position_bias))
    u, v, q, k = np.split(np.stack([silu(weight @ normed(x)) for x in x_ND]), 4, axis=1)
    states = []
    for i in range(len(x_ND)):
        mixed = np.zeros_like(v[0])
        for j in np.flatnonzero(sees_NN[i]):
            apart = abs(asking_N[i] - own_N[j])
            bucket = min(128, math.floor(math.log(max(1.0, apart)) / 0.301))
            offset = position[position_N[i] - position_N[j] + block.longest - 1]
            mixed += silu(q[i] @ k[j] + offset + time[bucket]) / block.longest * v[j]
        states.append(x_ND[i] + out @ (u[i] * normed(mixed)) + block.out.bias.detach().double().numpy())
    return np.stack(states)


def test_a_layer_is_the_papers_equation():
    torch.manual_seed(0)
    block = Block(ModelConfig(d_model=4, n_heads=1, n_kv_heads=1, max_history=5, dropout=0.0))
    for weight in block.parameters():
        weight.data += 0.5 * torch.randn(weight.shape)
    layout = lay_out(
        PromptShape(per_event=1, per_query=1, per_candidate=2, max_history=5, reread_events=1),
        n_events=np.array([3]),
        n_memory=np.array([0]),
        n_requests=np.array([1]),
        n_candidates=np.array([1]),
        now_R=np.array([2]),
        start_G=np.array([0]),
        row_E=np.arange(3),
        event_time_E=np.array([0.0, 100.0, 5000.0]),
        request_time_R=np.array([700.0]),
    )
    sees_NN = np.array(
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 0, 0, 1, 0, 0],  # the second event, read again by the request
            [1, 0, 0, 1, 1, 1],  # the candidate's two tokens
            [1, 0, 0, 1, 1, 1],
        ]
    )
    own_N, asking_N = [0, 100, 5000, 100, 700, 700], [100, 5000, 5000, 700, 700, 700]
    x_ND = torch.randn(6, 4)
    states_ND, kept = block(x_ND, layout, block.prepare(layout, 6))
    expected = by_hand(block, x_ND.double().numpy(), [0, 1, 2, 1, 2, 3], own_N, asking_N, sees_NN)
    np.testing.assert_allclose(states_ND.detach(), expected, atol=1e-5)
    over_ND, _ = block(x_ND[3:], layout, block.prepare(layout, 3), kept)
    np.testing.assert_allclose(over_ND.detach(), expected[3:], atol=1e-5)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0, 0), (1, 0), (1.3, 0), (1.4, 1), (-3600, 27), (86_400, 37), (1e20, 128)]
)
def test_buckets_of_time_grow_by_a_constant_factor(seconds, bucket):
    assert time_bucket(torch.tensor(float(seconds))).item() == bucket


@pytest.fixture
def told(world):
    """Scores of request 6 at its own time and a month later, for a model."""

    def scores(changed):
        tables, signals = world
        recommender = recommender_of(tables, signals, changed)
        gone = tables._replace(events=tables.events.filter(pl.col("event_time") < tables.requests["event_time"][6]))
        later = gone._replace(requests=gone.requests.with_columns(pl.col("event_time") + timedelta(days=30)))
        return [Scorer(recommender, asked).item_scores(np.array([6])) for asked in (gone, later)]

    return scores


def test_scores_move_with_the_time_of_the_request(told):
    now, later = told(WITHOUT_QUERY)
    assert np.abs(now - later).max() > 1e-3


def test_without_the_time_bias_they_do_not(told):
    now, later = told({**WITHOUT_QUERY, "model": HSTU | {"block_options": {"time_bias": False}}})
    assert now == pytest.approx(later, abs=1e-6)


def test_an_event_that_is_told_the_time_of_the_next_is_a_request_at_that_time(world):
    tables, signals = world
    recommender = recommender_of(tables, signals, WITHOUT_QUERY)
    corpus, shape = encode_corpus(tables, signals, recommender.vocabulary), recommender.prompt_shape()
    request = 6
    n_visible, start = int(corpus.visible_R[request]), int(corpus.user_start_R[request])
    next_event = start + n_visible
    time_R = corpus.request_time_R.copy()
    time_R[request] = corpus.event_time_E[next_event]
    segments = Segments(
        np.array([start]), np.array([next_event + 1]), np.array([start]), np.array([0, 1]), np.array([request])
    )
    with torch.no_grad():
        states = recommender(build_batch(replace(corpus, request_time_R=time_R), segments, shape))
    torch.testing.assert_close(states.request_RD[0], states.event_ED[n_visible - 1], atol=1e-5, rtol=1e-5)


def test_a_pointer_at_past_events_is_refused_in_words(world):
    with pytest.raises(ConfigError, match="the block 'hstu' tells each event the time of the next one"):
        recommender_of(*world, {"model": HSTU | {"head_options": {}}})
