import numpy as np
import pytest

from lrm.features.tables import read, read_declared
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import PromptShape
from lrm.training.targets import draw_targets, seen_before
from lrm.training.training_windows import shifted_windows
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    examples = write_examples(tmp_path_factory.mktemp("world"), n_users=40)
    tables, signals = read(examples), read_declared(examples)
    return encode_corpus(tables, signals, fit_vocabulary(tables, signals, preset("tiny").tokens))


def test_what_a_prediction_has_seen_is_its_segments_items_before_it_each_once(corpus):
    segments = shifted_windows(corpus, max_history=8, rng=np.random.default_rng(0)).pick(np.arange(5))
    batch = build_batch(corpus, segments, PromptShape(per_event=1, per_query=0, per_candidate=1, max_history=8))
    events = draw_targets(batch, corpus, np.random.default_rng(0)).event_P
    seen = seen_before(batch, events)
    for place, event in enumerate(events):
        begin, end = seen.offset_P[place : place + 2].tolist()
        start = max(segments.start_G[segments.start_G <= batch.events[event]])
        expected = set(corpus.event_row_E[start : batch.events[event]].tolist())
        assert sorted(seen.class_S[begin:end].tolist()) == sorted(expected)
        assert seen.row_S[begin:end].eq(place).all()
