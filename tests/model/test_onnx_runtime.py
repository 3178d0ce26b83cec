"""A decoder run by ONNX Runtime gives torch's states, over whatever is asked together."""

import numpy as np
import pytest
import torch

from lrm.model.kv_cache import Suffix, decode_over, prefill
from lrm.model.onnx_runtime import export
from lrm.tokens.corpus import encode_corpus
from tests.model.test_kv_cache import SHAPES, recommender_of


def nobody(prefix):
    """Of a user without events."""
    return prefix._replace(
        kept_LH=tuple(kept[:, :0] for kept in prefix.kept_LH),
        event_TD=prefix.event_TD[:0],
        row_T=prefix.row_T[:0],
        time_T=prefix.time_T[:0],
        n_memory=0,
    )


def suffix_of(corpus, counts):
    """One request for each count, with so many candidates."""
    rows = np.arange(sum(counts))
    identity = torch.as_tensor(corpus.candidate_identity_C[rows])
    requests = corpus.query_R.take(np.arange(len(counts)))
    time_R = corpus.request_time_R[: len(counts)]
    return Suffix(requests, corpus.candidate_C.take(rows), identity, np.array(counts, dtype=np.int64), time_R)


@pytest.mark.parametrize("changed", SHAPES.values(), ids=SHAPES)
def test_one_export_gives_the_states_of_torch_for_any_batch(world, changed):
    tables, signals = world
    recommender = recommender_of(tables, signals, changed)
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    prefixes = prefill(recommender, corpus)
    prefixes[1] = nobody(prefixes[1])
    exported = export(recommender.decoder, per_candidate=recommender.prompt_shape().per_candidate)
    for counts in ([0], [1], [200], [0, 0, 0], [3, 0, 1], [2] * 9):
        suffix = suffix_of(corpus, counts)
        expected, _ = decode_over(recommender, prefixes[: len(counts)], suffix)
        states, _ = decode_over(recommender, prefixes[: len(counts)], suffix, exported)
        assert states.request_RD.numpy() == pytest.approx(expected.request_RD.numpy(), abs=1e-5)
        assert states.candidate_logit_C.numpy() == pytest.approx(expected.candidate_logit_C.numpy(), abs=1e-5)


def test_an_export_keeps_the_weights_that_it_was_made_of(world):
    tables, signals = world
    recommender = recommender_of(tables, signals, {})
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    prefix, suffix = prefill(recommender, corpus)[:1], suffix_of(corpus, [1])
    before, _ = decode_over(recommender, prefix, suffix)
    exported = export(recommender.decoder, per_candidate=1)
    for weight in recommender.decoder.parameters():
        weight.data += 1.0
    after, _ = decode_over(recommender, prefix, suffix, exported)
    assert after.request_RD.numpy() == pytest.approx(before.request_RD.numpy(), abs=1e-5)
