"""Each variant, each memory and elastic tokens are presets: what they train can be judged."""

import json
from dataclasses import replace

import pytest

from lrm.config import SHUFFLED, VARIANTS
from lrm.evaluation.run import evaluate_model
from lrm.presets import PRESETS, preset
from lrm.training.run import pretrain_token_factory, train_lrm
from tests.evaluation.test_run import POLICY
from tests.evaluation.test_staging_results import UNSERVED, write_staging_results


def small(name):
    """The preset's tokens around the smallest decoder, with histories that its memory reaches beyond."""
    tiny, tokens = preset("tiny"), preset(name).tokens
    tokens = replace(tokens, width=8, n_buckets=8, min_item_count=1, min_category_count=1, memory_events=8)
    few = replace(tiny.evaluation, importance_tokens=2000, n_trees=2)
    return replace(tiny, tokens=tokens, model=replace(tiny.model, max_history=8), evaluation=few)


@pytest.mark.parametrize("name", [*VARIANTS, "memory-linear", "memory-attention", "elastic"])
def test_a_preset_is_trained_judged_and_weighed_signal_by_signal(name, examples, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "small", lambda: small(name))
    (tmp_path / "policy.toml").write_text(POLICY)
    pretrain_token_factory(examples, tmp_path / "factory", preset="small")
    train_lrm(examples, tmp_path / "factory", tmp_path / "model")
    can_be_served = name != SHUFFLED  # it reads the signals of other rows, and a server has one request at a time
    (tmp_path / "staging").mkdir()
    staging = write_staging_results(tmp_path / "staging", **({} if can_be_served else UNSERVED))
    asked = {"preset": "small", "feature_repo": tmp_path, "staging": staging}
    metrics = evaluate_model(examples, tmp_path / "model", None, tmp_path / "evaluation", **asked)
    result = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    assert 0 < metrics["ranking_auc"] < 1
    assert len(json.loads((tmp_path / "evaluation/feature_report.json").read_text())["signals"])
    said = [reason for reason in result["reasons"] if reason.startswith("The model cannot be served")]
    assert bool(said) != can_be_served
    if said:
        assert metrics["verdict"] == "reject"
