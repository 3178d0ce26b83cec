import dataclasses
from dataclasses import replace

import pytest

from lrm.config import (
    FORMAT,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    TokensConfig,
    TrainingConfig,
    from_json,
    to_json,
)
from lrm.errors import SchemaError


def test_a_knob_of_another_version_is_refused_by_name():
    text = to_json(RunConfig()).replace('"dropout"', '"drop_out"')
    with pytest.raises(SchemaError, match="ModelConfig has no knob 'drop_out'; the file was written by"):
        from_json(text)


def test_a_configuration_without_one_of_this_versions_knobs_is_refused_by_name():
    text = to_json(RunConfig()).replace('"dropout": 0.1,', "")
    with pytest.raises(SchemaError, match="ModelConfig needs the knob 'dropout'; the file was written by another"):
        from_json(text)


@pytest.mark.parametrize(("written", "seen"), [('"format": 0,', "format 0"), ("", "no format number")])
def test_a_configuration_of_another_format_is_refused_with_what_to_do(written, seen):
    text = to_json(RunConfig()).replace(f'"format": {FORMAT},', written)
    with pytest.raises(SchemaError, match=f"has {seen}, and this version reads format {FORMAT}; train the model again"):
        from_json(text)


def test_a_configuration_can_be_hashed_and_compared():
    other = replace(RunConfig(), training=TrainingConfig(objectives={"next_item": 1.0}))
    assert hash(RunConfig()) == hash(RunConfig())
    assert other != RunConfig()


@pytest.mark.parametrize(
    ("kind", "knob", "value", "message"),
    [
        (TokensConfig, "width", 0, "TokensConfig.width must be positive, got 0"),
        (TokensConfig, "n_query_tokens", -1, "TokensConfig.n_query_tokens must be at least 0, got -1"),
        (ModelConfig, "n_layers", 0, "ModelConfig.n_layers must be positive, got 0"),
        (ModelConfig, "d_model", 65, "d_model 65 must be a multiple of n_heads 2"),
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
