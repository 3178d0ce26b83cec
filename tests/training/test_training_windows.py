import numpy as np
import pytest

from lrm.features.tables import read, read_declared
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.training.training_windows import overlapping_windows, shifted_windows
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    examples = write_examples(tmp_path_factory.mktemp("world"), n_users=40)
    tables, signals = read(examples), read_declared(examples)
    return encode_corpus(tables, signals, fit_vocabulary(tables, signals, preset("tiny").tokens))


def test_every_training_event_is_a_target_exactly_once(corpus):
    segments = overlapping_windows(corpus, max_history=8)
    targets = [
        event
        for start, end, target_from in zip(segments.start_G, segments.end_G, segments.target_from_G, strict=True)
        for event in range(max(start + 1, target_from), end)
        if corpus.event_is_train_E[event]
    ]
    wanted = [e for e in np.flatnonzero(corpus.event_is_train_E) if e not in set(corpus.user_offset_U)]
    assert sorted(targets) == wanted


def test_a_training_request_is_in_one_window_and_sees_at_least_half_of_it(corpus):
    segments = overlapping_windows(corpus, max_history=8)
    assert sorted(segments.requests.tolist()) == np.flatnonzero(corpus.split_R == 0).tolist()
    for g in range(len(segments.start_G)):
        for request in segments.requests[segments.request_offset_G[g] : segments.request_offset_G[g + 1]]:
            now = corpus.user_start_R[request] + corpus.visible_R[request]
            assert segments.start_G[g] + 4 < now <= segments.end_G[g]


def test_an_epoch_of_shifted_windows_reads_each_training_event_once(corpus):
    """Users with more events than fit are cut elsewhere in another epoch; the others never."""
    epochs = [shifted_windows(corpus, max_history=8, rng=np.random.default_rng(seed)) for seed in (0, 1)]
    for segments in epochs:
        lengths = segments.end_G - segments.start_G
        assert lengths.max() <= 8
        read_events = np.concatenate([np.arange(a, b) for a, b in zip(segments.start_G, segments.end_G, strict=True)])
        assert len(np.unique(read_events)) == len(read_events)
        assert corpus.event_is_train_E[read_events].all()
        left = corpus.event_is_train_E.sum() - len(read_events)  # a window of one event would predict nothing
        assert left <= len(corpus.user_offset_U)
    assert not np.array_equal(epochs[0].start_G, epochs[1].start_G)


def test_every_event_with_a_history_is_predicted_in_some_epoch_also_where_windows_fill_up(corpus):
    n_train = corpus.event_is_train_E[: corpus.user_offset_U[1]].sum()
    assert n_train % 2 == 0
    epochs = [shifted_windows(corpus, max_history=n_train // 2, rng=np.random.default_rng(seed)) for seed in range(20)]
    firsts = [set(epoch.start_G[epoch.start_G < n_train].tolist()) for epoch in epochs]
    assert set.intersection(*firsts) <= {0}
