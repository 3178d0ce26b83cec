from dataclasses import replace

import numpy as np
import pytest

from lrm.features.tables import read, read_declared
from lrm.presets import preset
from lrm.tokens.corpus import Corpus, encode_corpus, fit_vocabulary
from lrm.tokens.memmap import memory_mapped
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=5)
    tables, signals = read(folder), read_declared(folder)
    return encode_corpus(tables, signals, fit_vocabulary(tables, signals, preset("tiny").tokens))


def test_a_large_corpus_is_read_from_files_that_are_left_to_nobody(corpus, tmp_path):
    in_files = memory_mapped(corpus, tmp_path, from_bytes=1)
    assert list(tmp_path.iterdir()) == []
    for before, after in (
        (corpus.event_identity_E, in_files.event_identity_E),
        (corpus.history_E.sparse_NS, in_files.history_E.sparse_NS),
        *zip(corpus.query_R.bags, in_files.query_R.bags, strict=True),
    ):
        assert isinstance(after.base, np.memmap)
        assert (after.dtype, after.tolist()) == (before.dtype, before.tolist())


def test_a_small_corpus_stays_in_memory(corpus, tmp_path):
    assert memory_mapped(corpus, tmp_path) is corpus


def test_names_of_items_that_are_text_stay_in_memory(corpus, tmp_path):
    named = replace(corpus, item_ids=np.array(["tea", "milk"], dtype=object))
    assert memory_mapped(named, tmp_path, from_bytes=1).item_ids is named.item_ids
