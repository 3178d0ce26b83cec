"""Passes of a few sizes give the decoder's states for whatever fits in one of them, and leave it the rest."""

import os
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch

from lrm.model import artifact
from lrm.model.cuda_graphs import CudaGraphs, Size
from lrm.model.device import DEVICE
from lrm.model.kv_cache import decode_over, prefill
from lrm.tokens.corpus import encode_corpus
from tests.model.test_kv_cache import SHAPES, recommender_of
from tests.model.test_onnx_runtime import nobody, suffix_of
from tests.worlds import write_examples

COUNTS = ([0], [1], [5], [0, 0, 0], [3, 0, 1], [2] * 9)
"""Candidates of each request of a pass."""
ON_A_GPU = """
import sys, torch
from pathlib import Path
from lrm.features.tables import read
from lrm.model import artifact
from lrm.model.device import use_device
from lrm.model.kv_cache import decode_over, prefill
from lrm.serving.engine.decoding import GRAPHS, decoder_of
from lrm.tokens.corpus import encode_corpus
from tests.model.test_cuda_graphs import COUNTS
from tests.model.test_onnx_runtime import suffix_of
use_device()
recommender = artifact.load(Path(sys.argv[1]))
corpus = encode_corpus(read(Path(sys.argv[2])), recommender.signals, recommender.vocabulary)
prefixes, captured = prefill(recommender, corpus), decoder_of(recommender, GRAPHS)
for counts in COUNTS * 2:
    asked = (prefixes[: len(counts)], suffix_of(corpus, counts))
    of_both = [decode_over(recommender, *asked, way)[0] for way in (None, captured)]
    torch.testing.assert_close(of_both[0].request_RD, of_both[1].request_RD, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(of_both[0].candidate_logit_C, of_both[1].candidate_logit_C, atol=1e-3, rtol=1e-3)
"""


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def asked(request, world):
    """A model of each shape and its prefixes, the second of somebody unknown."""
    tables, signals = world
    recommender = recommender_of(tables, signals, request.param)
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    prefixes = prefill(recommender, corpus)
    prefixes[1] = nobody(prefixes[1])
    return recommender, corpus, prefixes


def sizes_of(shape, *held):
    """Sizes by requests, share of the longest history and candidates."""
    longest = shape.memory_tokens + shape.max_history * shape.per_event
    return [Size(n, -(-longest // parts), shape.per_query + each * shape.per_candidate) for n, parts, each in held]


def test_passes_of_a_few_sizes_give_the_states_of_the_decoder_for_any_batch(asked):
    recommender, corpus, prefixes = asked
    shape = recommender.prompt_shape()
    captured = CudaGraphs(recommender.decoder, sizes_of(shape, (9, 1, 3), (1, 1, 1), (4, 2, 3), (1, 2, 9)), shape)
    for counts in COUNTS * 2:  # the second time over what the first has left behind
        suffix = suffix_of(corpus, counts)
        expected, _ = decode_over(recommender, prefixes[: len(counts)], suffix)
        states, _ = decode_over(recommender, prefixes[: len(counts)], suffix, captured)
        assert states.request_RD.numpy() == pytest.approx(expected.request_RD.numpy(), abs=1e-5)
        assert states.candidate_logit_C.numpy() == pytest.approx(expected.candidate_logit_C.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("held", "counts"),
    [((1, 1, 3), [1, 1]), ((9, 1, 3), [4]), ((9, 99, 3), [1])],
    ids=["requests", "candidates", "history"],
)
def test_what_no_size_holds_is_left_to_the_decoder(world, held, counts):
    tables, signals = world
    recommender = recommender_of(tables, signals, {})
    corpus, shape = encode_corpus(tables, signals, recommender.vocabulary), recommender.prompt_shape()
    captured, by_hand = CudaGraphs(recommender.decoder, sizes_of(shape, held), shape), []
    recommender.decoder.register_forward_hook(lambda *_: by_hand.append(1))
    prefixes = prefill(recommender, corpus)
    by_hand.clear()
    decode_over(recommender, prefixes[: len(counts)], suffix_of(corpus, counts), captured)
    assert by_hand


def test_the_least_size_that_holds_a_pass_is_used(world):
    tables, signals = world
    recommender = recommender_of(tables, signals, {})
    corpus, shape = encode_corpus(tables, signals, recommender.vocabulary), recommender.prompt_shape()
    captured = CudaGraphs(recommender.decoder, sizes_of(shape, (9, 1, 9), (2, 1, 2), (2, 1, 9)), shape)
    used = []
    for held in captured._passes:
        held._replay = lambda size=held.size, replay=held._replay: used.append(size) or replay()
    prefixes = prefill(recommender, corpus)
    for counts in ([0], [2, 1], [3, 0], [0] * 3):
        decode_over(recommender, prefixes[: len(counts)], suffix_of(corpus, counts), captured)
    assert [(size.requests, size.suffix - shape.per_query) for size in used] == [(2, 2), (2, 2), (2, 9), (9, 9)]


@pytest.mark.parametrize("broken", ["candidate", "history"])
def test_what_is_no_number_reaches_whom_it_reaches_in_the_decoder_and_nobody_later(asked, broken):
    recommender, corpus, prefixes = asked
    shape = recommender.prompt_shape()
    captured = CudaGraphs(recommender.decoder, sizes_of(shape, (2, 1, 5)), shape)
    suffix, sound = suffix_of(corpus, [5, 1]), suffix_of(corpus, [2, 2])
    pair = [prefixes[0], prefixes[2]]
    if broken == "candidate":
        value_NF = suffix.candidate_C.value_NF.clone()
        value_NF[3] = float("nan")
        suffix = suffix._replace(candidate_C=suffix.candidate_C._replace(value_NF=value_NF))
    else:
        pair[0] = prefixes[0]._replace(kept_LH=tuple(kept * float("nan") for kept in prefixes[0].kept_LH))
    expected, states = (decode_over(recommender, pair, suffix, way)[0] for way in (None, captured))
    assert 0 < int(expected.candidate_logit_C.isnan().sum()) < 6
    np.testing.assert_allclose(states.candidate_logit_C, expected.candidate_logit_C, atol=1e-5)
    later = [prefixes[4], nobody(prefixes[5])]
    expected, states = (decode_over(recommender, later, sound, way)[0] for way in (None, captured))
    np.testing.assert_allclose(states.candidate_logit_C, expected.candidate_logit_C, atol=1e-5)
    np.testing.assert_allclose(states.request_RD, expected.request_RD, atol=1e-5)


def test_every_tensor_of_a_padded_pass_is_made_on_the_default_device(asked):
    """The device `meta` refuses to meet a tensor of another device as a GPU would."""
    recommender, corpus, _ = asked
    on_meta, shape = deepcopy(recommender).to("meta"), recommender.prompt_shape()
    with torch.device("meta"):
        (held,) = CudaGraphs(on_meta.decoder, sizes_of(shape, (9, 1, 3)), shape)._passes
        prefixes = prefill(on_meta, corpus)
        states, _ = decode_over(on_meta, prefixes, suffix_of(corpus, [2] * 9), held)
    assert {states.request_RD.device.type, states.candidate_logit_C.device.type} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is at hand")
def test_captured_graphs_give_the_states_of_the_decoder(asked, tmp_path):
    examples = write_examples(tmp_path / "world", n_users=9, n_items=12, n_events=14)
    artifact.save(asked[0], tmp_path / "model")
    command = [sys.executable, "-c", ON_A_GPU, tmp_path / "model", examples]
    subprocess.run(command, env=os.environ | {DEVICE: "cuda", "NVIDIA_TF32_OVERRIDE": "0"}, check=True)
