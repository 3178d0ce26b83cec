"""A server decodes by the quicker of two runtimes that give the same numbers, and says which and why."""

import json
import math
import os

import pytest
import torch

from lrm.model.kv_cache import decode_over
from lrm.model.onnx_runtime import export
from lrm.schema import ITEM_ID
from lrm.serving.engine.decoding import GRAPHS, _difference, decoder_of, judge, probes, with_quickest_decoder
from lrm.serving.engine.histories import spread_users
from lrm.serving.engine.predict import CHUNK_CANDIDATES, MAX_SHARED_CANDIDATES, predict
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, PredictRequest
from lrm.serving.engine.session import open_session
from lrm.serving.staging.process import running
from tests.serving.conftest import ask


@pytest.fixture(scope="module")
def session(world):
    return open_session(world.release)


def values(answers, what):
    """Each answer's number for each item."""
    return [{item[ITEM_ID]: item[what] for item in one["items"]} for one in answers]


def test_answers_do_not_depend_on_the_runtime(session):
    quick = with_quickest_decoder(session, worth=0.0)
    facts = quick.decoder_facts
    assert (facts["runtime"], facts["reason"]) == ("onnxruntime", "it is quicker")
    assert facts["difference"] < 1e-5
    assert min(facts["speed"], facts["torch_ms"], facts["onnxruntime_ms"]) > 0
    users = spread_users(session.histories, 20)
    offered = tuple({ITEM_ID: item} for item in session.items.item_ids.tolist())
    for what, requests in (
        ("score", [PredictRequest(RECOMMEND, user, k=None) for user in [*users, 999]]),
        ("probability", [PredictRequest(SCORE, user, candidates=offered, k=None) for user in [*users, 999]]),
    ):
        mine, theirs = (values(predict(one, requests), what) for one in (quick, session))
        for one, other in zip(mine, theirs, strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_the_sizes_of_a_gpu_hold_what_a_server_is_asked(session):
    """On a processor they are run as they are, so numbers can be compared, and which are too large."""
    decode = decoder_of(session.recommender, GRAPHS)
    facts = judge(session.recommender, decode, probes(session), name=GRAPHS, worth=0.0)
    assert (facts["runtime"], facts["cuda_graphs_ms"] > 0, facts["difference"] < 1e-4) == ("cuda_graphs", True, True)
    held = {(one.size.requests, one.size.suffix) for one in decode._passes}
    shape = session.recommender.prompt_shape()
    for n_requests, n_candidates in ((1, CHUNK_CANDIDATES), (32, MAX_SHARED_CANDIDATES), (32, 0)):
        assert (n_requests, shape.per_query + n_candidates * shape.per_candidate) in held
    assert max(one.size.history for one in decode._passes) >= shape.max_history * shape.per_event


def test_a_runtime_that_is_no_quicker_is_left_alone(session):
    slow = with_quickest_decoder(session, worth=1e9)
    assert slow.decode is None
    assert (slow.decoder_facts["runtime"], slow.decoder_facts["speed"] > 0) == ("torch", True)
    assert "not 1e+09 times as quick" in slow.decoder_facts["reason"]


def test_a_runtime_that_gives_other_numbers_is_not_used(world, session):
    other = open_session(world.release).recommender.decoder
    for weight in other.parameters():
        weight.data += 0.1 * torch.randn(weight.shape)
    exported = export(other, per_candidate=session.recommender.prompt_shape().per_candidate)
    facts = judge(session.recommender, exported, probes(session), worth=0.0)
    assert (facts["runtime"], facts["reason"]) == ("torch", "ONNX Runtime gives other numbers")
    assert facts["difference"] > 1e-4


@pytest.mark.parametrize("decoded", [0, -1], ids=["request", "candidate"])
def test_a_runtime_that_gives_what_is_no_number_is_not_used(session, decoded):
    exported = export(session.recommender.decoder, per_candidate=session.recommender.prompt_shape().per_candidate)

    def decode(*prompt):
        states_ND = exported(*prompt).clone()
        states_ND[-1] = float("nan")
        return states_ND

    facts = judge(session.recommender, decode, [probes(session)[decoded]], worth=0.0)
    assert facts == {"runtime": "torch", "reason": "ONNX Runtime gives other numbers", "difference": None}


@pytest.mark.parametrize("field", ["request_RD", "candidate_logit_C", "head"])
def test_a_single_state_that_is_no_number_makes_the_difference_infinite(session, field):
    states, _ = decode_over(session.recommender, *probes(session)[-1])
    value = getattr(states, field)
    nan = value._replace(gate_R=value.gate_R * math.nan) if field == "head" else value * math.nan
    assert _difference(states, states) == 0.0
    assert _difference(states, states._replace(**{field: nan})) == math.inf


def test_an_operator_sees_which_runtime_decodes(address):
    decoder = ask(address, "/v1/model")[1]["decoder"]
    assert decoder["runtime"] in ("torch", "onnxruntime")
    assert decoder["difference"] < 1e-4


def test_a_server_without_onnx_runtime_decodes_by_torch_and_says_so(world, address, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\nsys.modules['onnxruntime'] = None  # not to be imported\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with running(world.release.folder, log=tmp_path / "log") as without:
        told = ask(without, "/v1/model")[1]["decoder"]
        mine, theirs = (ask(place, "/v1/recommend", user_id=3)[1] for place in (without, address))
    assert told["runtime"] == "torch"
    assert told["reason"] == "ONNX Runtime cannot run it (ModuleNotFoundError)"
    assert values([mine], "score")[0] == pytest.approx(values([theirs], "score")[0], abs=1e-5)
    (line,) = [
        line for line in map(json.loads, (tmp_path / "log").read_text().splitlines()) if line["message"] == "decoder"
    ]
    assert (line["runtime"], line["reason"]) == ("torch", told["reason"])
    assert "import of onnxruntime halted" in line["detail"]
