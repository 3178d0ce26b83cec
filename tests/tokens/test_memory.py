from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lrm.features.tables import read
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.tokens.corpus import fit_vocabulary
from lrm.tokens.memory import AttentionMemory, LinearMemory
from tests.worlds import SIGNALS, random_weights, write_examples


def test_a_linear_memory_begins_as_the_mean_of_each_run_of_events():
    memory = LinearMemory(n_events=4, n_tokens=2, d_model=3)
    tokens = torch.randn(5, 4, 3)
    means = tokens.view(5, 2, 2, 3).mean(2)
    assert torch.allclose(memory(tokens, torch.ones(5, 4, dtype=torch.bool)), means + memory.constant_ND)


@pytest.mark.parametrize("kind", [LinearMemory, AttentionMemory])
def test_places_without_an_event_do_not_count(kind):
    torch.manual_seed(0)
    memory = kind(n_events=4, n_tokens=2, d_model=3)
    is_event = torch.tensor([[False, False, False, True]])
    tokens = torch.randn(1, 4, 3)
    other = torch.where(is_event.unsqueeze(-1), tokens, 7.0)
    assert torch.allclose(memory(tokens, is_event), memory(other, is_event))
    assert torch.allclose(memory(tokens, is_event)[0, 0], memory.constant_ND[0])


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_memory_reaches_as_far_back_as_it_says_and_no_further(kind, tmp_path):
    """A model of four events and four older ones: the fifth event back moves the score, the ninth does not."""
    tables = read(write_examples(tmp_path, n_users=6))
    torch.manual_seed(0)
    tiny = preset("tiny")
    tokens = replace(tiny.tokens, memory=kind, memory_events=4, memory_tokens=2)
    config = replace(tiny, tokens=tokens, model=replace(tiny.model, max_history=4))
    recommender = random_weights(Recommender(config, SIGNALS, fit_vocabulary(tables, SIGNALS, tokens)))
    assert config.events_read == 8
    asked = tables.requests.group_by("user_id", maintain_order=True).last()["request_id"].to_numpy()
    back = pl.int_range(pl.len()).over("user_id") - pl.len().over("user_id")  # -1 is after the last request

    def with_another_item_at(n_back: int) -> np.ndarray:
        changed = pl.when(back == -1 - n_back).then(pl.lit(101, dtype=pl.Int64)).otherwise("item_id")
        events = tables.events.with_columns(item_id=changed)
        return Scorer(recommender, tables._replace(events=events)).candidate_logits(asked)

    unchanged = Scorer(recommender, tables).candidate_logits(asked)
    assert np.abs(with_another_item_at(5) - unchanged).max() > 1e-6
    assert np.array_equal(with_another_item_at(9), unchanged)


def test_attention_pools_in_bfloat16_as_in_float32_up_to_rounding():
    memory, tokens = AttentionMemory(n_events=8, n_tokens=2, d_model=4), torch.randn(3, 8, 4)
    is_event = torch.arange(8) >= torch.tensor([0, 5, 8])[:, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = memory(tokens, is_event)
    assert torch.allclose(short.float(), memory(tokens, is_event), atol=0.02)
