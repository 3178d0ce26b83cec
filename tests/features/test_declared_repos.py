"""The feature repos of the built-in data: each loads, and declares what its data folder has."""

from pathlib import Path

import pytest

from lrm.features.feast_repo import declarations

PROJECT = Path(__file__).resolve().parents[2]
N_SIGNALS = {
    "feature_repo": 70,
    "examples/ml-100k/feature_repo": 28,
    "examples/ml-1m/feature_repo": 8,
    "examples/amazon-beauty/feature_repo": 2,
    "examples/own-data/feature_repo": 7,
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("repo", N_SIGNALS)
def test_a_built_in_feature_repo_loads_and_keeps_every_rule(repo, tmp_path):
    declared = declarations(PROJECT / repo, tmp_path)
    assert len(declared.signals) == N_SIGNALS[repo]
    assert all(view.path.parent == tmp_path for view in declared.views)


def test_the_default_repo_has_signals_of_user_item_pair_and_request(tmp_path):
    declared = declarations(PROJECT / "feature_repo", tmp_path)
    assert {signal.entity for signal in declared.signals} == {"user", "item", "pair", "request"}
    assert {view.keys for view in declared.joined} == {
        ("user_id",),
        ("item_id",),
        ("user_id", "item_id"),
        ("item_id", "store_id"),
    }
