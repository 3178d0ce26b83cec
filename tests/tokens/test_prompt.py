import numpy as np
import pytest

from lrm.features.tables import read, read_declared
from lrm.presets import preset
from lrm.tokens.corpus import Corpus, encode_corpus, fit_vocabulary
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import PromptShape, scoring_segments, segment_tokens, token_batches
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """24 events a user, one a day at noon; requests at midnight before each of the last 12, so 12..23 are visible."""
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=5)
    tables, signals = read(folder), read_declared(folder)
    return encode_corpus(tables, signals, fit_vocabulary(tables, signals, preset("tiny").tokens))


def test_a_request_sees_exactly_the_events_before_it(corpus):
    assert corpus.visible_R[:12].tolist() == list(range(12, 24))


def test_scoring_shows_each_request_its_latest_events_and_no_more(corpus):
    requests = np.arange(corpus.n_requests)
    segments = scoring_segments(corpus, requests, max_history=16)
    assert sorted(segments.requests.tolist()) == requests.tolist()
    for g in range(len(segments.start_G)):
        for request in segments.requests[segments.request_offset_G[g] : segments.request_offset_G[g + 1]]:
            now = corpus.user_start_R[request] + corpus.visible_R[request]
            assert segments.start_G[g] == max(corpus.user_start_R[request], now - 16)
            assert segments.end_G[g] >= now


def test_batches_hold_every_row_once_within_the_token_budget():
    lengths = np.array([5, 9, 1, 30, 4, 4])
    batches = list(token_batches(lengths, batch_tokens=12, rng=np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3, 4, 5]
    assert all(lengths[rows].sum() <= 12 or len(rows) == 1 for rows in batches)


def test_the_token_count_of_a_batch_is_what_its_segments_promise(corpus):
    segments = scoring_segments(corpus, np.arange(corpus.n_requests), max_history=8)
    shape = PromptShape(per_event=3, per_query=2, per_candidate=4, max_history=8, older_events=4, memory_tokens=2)
    assert build_batch(corpus, segments, shape).n_tokens == segment_tokens(corpus, segments, shape).sum()
