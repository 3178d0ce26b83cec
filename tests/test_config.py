import dataclasses

import pytest

from lrm.config import (
    PRESETS,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    TokensConfig,
    TrainingConfig,
    from_json,
    preset,
    to_json,
)
from lrm.errors import SchemaError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_carries_its_name_and_survives_json_unchanged(name):
    config = preset(name)
    assert config.name == name
    assert from_json(to_json(config)) == config


def test_a_preset_with_a_memory_reads_as_far_back_as_the_default_in_a_shorter_prompt():
    for kind in ("linear", "attention"):
        config = preset(f"memory-{kind}")
        assert config.tokens.memory == kind
        assert config.events_read == preset("default").events_read == 512
        assert config.model.max_history + config.tokens.memory_tokens == 264


def test_the_elastic_preset_has_as_many_tokens_as_its_largest_budget():
    tokens = preset("elastic").tokens
    assert (tokens.elastic, tokens.n_query_tokens, tokens.n_candidate_tokens) == (True, 16, 16)


def test_an_unknown_preset_is_refused_with_the_names_that_exist():
    with pytest.raises(
        SchemaError,
        match=r"no preset is called 'huge'; "
        r"lrm/config.py has default, sequential, sequential-sparse, large-data, small-data, tiny, soft",
    ):
        preset("huge")


def test_a_knob_of_another_version_is_refused_by_name():
    text = to_json(RunConfig()).replace('"dropout"', '"drop_out"')
    with pytest.raises(SchemaError, match="ModelConfig has no knob 'drop_out'; it was written by another version"):
        from_json(text)


def test_a_knob_that_an_older_version_did_not_have_takes_its_default():
    text = to_json(RunConfig()).replace('"dropout": 0.1', '"n_layers": 2')
    assert from_json(text).model.dropout == ModelConfig().dropout


def test_a_model_made_before_candidates_read_the_request_is_built_as_it_was():
    assert RunConfig().tokens.query_in_candidates
    text = to_json(RunConfig()).replace('"query_in_candidates": true', '"width": 16')
    assert not from_json(text).tokens.query_in_candidates


@pytest.mark.parametrize(
    ("kind", "knob", "value", "message"),
    [
        (TokensConfig, "width", 0, "TokensConfig.width must be positive, got 0"),
        (TokensConfig, "n_query_tokens", -1, "TokensConfig.n_query_tokens must be at least 0, got -1"),
        (ModelConfig, "n_layers", 0, "ModelConfig.n_layers must be positive, got 0"),
        (ModelConfig, "d_model", 66, "d_model 66 must be an even multiple of n_heads 2"),
        (TrainingConfig, "learning_rate", -1.0, "TrainingConfig.learning_rate must be positive, got -1.0"),
    ],
)
def test_an_impossible_knob_is_refused_with_what_was_seen(kind, knob, value, message):
    with pytest.raises(ValueError, match=message):
        kind(**{knob: value})


def test_grouped_query_heads_must_divide_the_heads():
    with pytest.raises(ValueError, match="n_heads 4 must be a multiple of n_kv_heads 3"):
        ModelConfig(n_heads=4, n_kv_heads=3)


def test_a_configuration_cannot_be_changed_after_it_was_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EvaluationConfig().k = 20  # type: ignore[misc]
