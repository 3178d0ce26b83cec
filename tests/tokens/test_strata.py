from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lrm.features.tables import read
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.makers.shuffled import change_corpus
from lrm.tokens.strata import donors, strata, stratum
from tests.worlds import SIGNALS, write_examples


def test_donors_are_a_permutation_within_each_stratum():
    groups = np.array([2, 0, 0, 1, 2, 0, 2])
    donor = donors(groups, np.random.default_rng(0))
    assert sorted(donor) == list(range(7))
    assert (groups[donor] == groups).all()


def test_strata_are_equal_parts_and_keep_equal_values_together():
    parts = stratum(np.arange(1000))
    assert np.bincount(parts).tolist() == pytest.approx([200] * 5, abs=1)
    assert set(stratum(np.zeros(1000))) == {0}
    assert len(set(stratum(np.arange(1000), np.arange(1000)[::-1] % 7))) <= 16
    assert set(stratum(np.arange(99))) == {0}
    assert stratum(np.zeros(0)).size == 0


def test_rows_that_are_kept_apart_share_no_stratum_and_are_cut_by_their_own_quantiles():
    measure, split = np.concatenate([np.arange(250), np.arange(5000, 5500)]), np.repeat([0, 1], [250, 500])
    parts = stratum(measure, apart=split)
    assert np.bincount(parts[split == 0]).tolist() == pytest.approx([50] * 5, abs=1)
    assert np.bincount(parts[split == 1])[5:].tolist() == pytest.approx([100] * 5, abs=1)
    assert stratum(np.zeros(0), apart=np.zeros(0)).size == 0


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """A corpus whose events and candidates are mostly of a few items, and its vocabulary."""
    tables = read(write_examples(tmp_path_factory.mktemp("world"), n_users=40))
    rng = np.random.default_rng(0)
    items = tables.items["item_id"].to_numpy()
    chance = 1 / (1.0 + np.arange(len(items))) ** 1.5

    def drawn(table):
        return table.with_columns(pl.Series("item_id", rng.choice(items, table.height, p=chance / chance.sum())))

    tables = tables._replace(events=drawn(tables.events), candidates=drawn(tables.candidates))
    vocabulary = fit_vocabulary(tables, SIGNALS, preset("tiny").tokens)
    return encode_corpus(tables, SIGNALS, vocabulary), vocabulary


def traced(corpus, vocabulary):
    """(C,) the row that each candidate's signals come from in the variant `shuffled`."""
    numbered = corpus.candidate_C._replace(value_NF=np.arange(len(corpus.label_C))[:, None])
    return change_corpus(replace(corpus, candidate_C=numbered), vocabulary).candidate_C.value_NF[:, 0]


def test_where_few_items_are_most_of_the_rows_a_row_still_trades_with_rows_of_its_own_fifth(skewed):
    """Tenths of the catalogue would not do: three items of thirty are most of the candidates."""
    corpus, vocabulary = skewed
    counts = np.concatenate([[0], vocabulary.item_counts[vocabulary.item_counts > 0]])[corpus.candidate_identity_C]
    n_candidates = np.diff(corpus.candidate_offset_R)
    split, length = (np.repeat(of, n_candidates) for of in (corpus.split_R, corpus.visible_R))
    assert np.isin(counts, np.sort(vocabulary.item_counts)[-3:]).mean() > 0.5
    source = traced(corpus, vocabulary)
    assert sorted(source) == list(range(len(source)))
    assert (source != np.arange(len(source))).mean() > 0.9
    assert (split[source] == split).all()
    train = split == 0
    for measure in (counts, length):
        fifth = np.searchsorted(np.quantile(measure[train], [0.2, 0.4, 0.6, 0.8]), measure)
        assert (fifth[source] == fifth)[train].all()


@pytest.mark.parametrize("gone", [("items",), ("items", "events", "candidates")], ids=" and ".join)
def test_tables_without_a_catalogue_or_without_rows_at_all_have_strata_too(gone, skewed, tmp_path):
    tables = read(write_examples(tmp_path, n_users=4))
    tables = tables._replace(**{name: getattr(tables, name).clear() for name in gone})
    corpus = encode_corpus(tables, SIGNALS, skewed[1])
    heights = [getattr(tables, name).height for name in ("items", "events", "requests", "candidates")]
    assert [len(rows) for rows in strata(corpus, skewed[1])] == heights
    assert change_corpus(corpus, skewed[1]).n_requests == tables.requests.height
