"""A data folder of orders alone, its users' last events held out, with a planted answer: what follows the last item."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from lrm.features.datasets.leave_one_out import START, build_order
from lrm.features.datasets.movielens import with_times

PROJECT = Path(__file__).resolve().parent.parent
POLICY = """\
[decision]
min_users = 20
n_resamples = 200
min_gain = 0.0

[margins]
retrieval = {{ ndcg = 1.0, recall = 1.0, concentration = 1.0 }}

[guardrails]
max_latency_ratio = 100.0
max_bundle_ratio = 100.0
min_coverage_ratio = 0.0

[honesty]
max_gain = {{ retrieval = {{ ndcg = 1.0, recall = 1.0, hit_rate = 1.0, mrr = 1.0 }} }}
"""


def write_order_folder(folder: Path, *, n_users: int = 120, n_items: int = 20, n_events: int = 12) -> Path:
    """Write a data folder, with its `feature_repo/` inside; a user's items follow one another along a cycle."""
    folder.mkdir(parents=True)
    first = np.random.default_rng(0).integers(0, n_items, n_users)
    order = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(1, n_users + 1), n_events),
            "item_id": ((first[:, np.newaxis] + np.arange(n_events)) % n_items).ravel() + 1,
            "pos": np.tile(np.arange(n_events), n_users),
        }
    )
    items = pl.DataFrame(
        {"item_id": np.arange(1, n_items + 1), "attributes": [[f"a{item % 3}"] for item in range(n_items)]}
    )
    with_times(items, START).write_parquet(folder / "items.parquet")
    dataset = build_order(order, folder) | {"name": "orders", "description": "synthetic", "terms": "none"}
    (folder / "dataset.json").write_text(json.dumps(dataset | {"source_sha256": {}}))
    shutil.copytree(PROJECT / "examples/amazon-beauty/feature_repo", folder / "feature_repo")
    (folder / "feature_repo/policy.toml").write_text(POLICY.format())
    return folder
