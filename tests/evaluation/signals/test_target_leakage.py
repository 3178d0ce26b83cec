"""An item's content that tells who was chosen is named, also where there is nothing to rank; honest content is not."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lrm.evaluation.policy import LeakagePolicy
from lrm.evaluation.signals.target_leakage import LEAST_TARGETS, content_auc, suspicions
from lrm.features.tables import read
from lrm.presets import preset
from lrm.schema import Signal
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from tests.worlds import SIGNALS, write_examples

PLANTED = tuple(
    Signal(name=name, kind=kind, makers=("history", "candidate"), entity="item", view="item_content")
    for name, kind in (("chosen_at_last", "dense"), ("demand", "dense"), ("added", "dense"), ("fate", "sparse"))
)
"""Whether somebody chose the item in the test window, as a number and as a word; how often it was chosen in training,
and when it was chosen first."""
CONTENT = (*(signal for signal in SIGNALS if signal.name in ("colour", "vector", "tags")), *PLANTED)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Many items, each chosen by few; there are no candidates."""
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=300, n_items=4000, p_follow=0.0)
    tables = read(folder)
    trained = tables.events.filter(split="train")
    counts = trained.group_by("item_id").agg(demand=pl.len(), added=pl.col("event_time").min().dt.epoch("s"))
    wanted = tables.events.filter(split="test")["item_id"].unique()
    items = tables.items.join(counts, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col("demand", "added").cast(pl.Float32),
        chosen_at_last=pl.col("item_id").is_in(wanted.implode()).cast(pl.Float32),
        fate=pl.when(pl.col("item_id").is_in(wanted.implode())).then(pl.lit("kept")).otherwise(pl.lit("given up")),
    )
    described = items.select("item_id", *(signal.name for signal in PLANTED))
    events, candidates = (
        table.join(described, on="item_id", how="left", maintain_order="left")
        for table in (tables.events, tables.candidates.clear())
    )
    return tables._replace(items=items, events=events, candidates=candidates)


def corpus_of(tables):
    return encode_corpus(tables, CONTENT, fit_vocabulary(tables, CONTENT, preset("tiny").tokens))


def test_content_that_tells_who_was_chosen_is_suspicious_and_no_other_is(world):
    areas = content_auc(corpus_of(world), CONTENT, rng=np.random.default_rng(0))
    assert set(areas) == {signal.name for signal in CONTENT}
    assert min(areas["chosen_at_last"], areas["fate"]) > 0.85
    others = [area for name, area in areas.items() if name not in ("chosen_at_last", "fate")]
    assert max(others) < 0.7
    said = suspicions(CONTENT, areas, LeakagePolicy(max_signal_auc=0.85))
    assert [text.split("'")[1] for text in said] == ["chosen_at_last", "fate"]
    assert "alone it orders outcomes with an area under the curve of" in said[0]


def test_too_few_targets_tell_nothing(world):
    corpus = corpus_of(world)
    tested = np.flatnonzero(corpus.split_R == 2)
    few = corpus.split_R.copy()
    few[tested[LEAST_TARGETS:]] = 1
    assert content_auc(replace(corpus, split_R=few), CONTENT, rng=np.random.default_rng(0)) == {}
    nobody = replace(corpus, event_is_train_E=np.zeros_like(corpus.event_is_train_E))
    assert content_auc(nobody, CONTENT, rng=np.random.default_rng(0)) == {}
