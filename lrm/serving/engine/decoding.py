"""What decodes requests over kept histories: torch, or what is measured to be quicker.

On a processor that may be ONNX Runtime, on a GPU passes of torch captured as CUDA graphs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrm.model.blocks import FixedSizeBlock, OnnxBlock
from lrm.model.cuda_graphs import CudaGraphs, Size, history_bytes
from lrm.model.decoder import Decode
from lrm.model.kv_cache import Prefix, Suffix, decode_over
from lrm.model.onnx_runtime import export
from lrm.model.recommender import Recommender
from lrm.model.states import States
from lrm.schema import ITEM_ID
from lrm.serving.engine.chunks import CHUNK_CANDIDATES
from lrm.serving.engine.chunks import MAX_SHARED_CANDIDATES as MOST_SHARED
from lrm.serving.engine.histories import spread_users
from lrm.serving.engine.predict import decoder_inputs
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, PredictRequest
from lrm.serving.engine.session import Session, unknown_user_id
from lrm.serving.logs import log

TORCH, ONNX, GRAPHS = "torch", "onnxruntime", "cuda_graphs"
TITLES = {ONNX: "ONNX Runtime", GRAPHS: "CUDA graphs"}
OFFERS: dict[str, type] = {ONNX: OnnxBlock, GRAPHS: FixedSizeBlock}
"""What a block must offer to be decoded so."""
HELD = ((1, 0), (1, MOST_SHARED), (1, 256), (1, CHUNK_CANDIDATES), (8, 0), (8, MOST_SHARED), (32, 0), (32, MOST_SHARED))
"""Requests together, and candidates of the one with most, for which a pass is captured; 0: the best are asked for."""
SHARES = (0.25, 1.0)
"""Of the longest history: passes are captured for both."""
CAPTURED_BYTES = 2**30
"""Bound of the histories that one captured pass holds; a longer prompt has fewer sizes."""
MAX_SHARED_CANDIDATES, N_CANDIDATES = 8, 2
"""Users of the larger measured passes, and candidates of each: what a server under load decodes at once."""
ROUNDS = 5
TOLERANCE = 1e-4
"""Difference up to which it is the same model, of numbers up to 1; of greater ones, in proportion."""
WORTH = 1.1
"""Times quicker from which on it is used."""
Pass = tuple[list[Prefix], Suffix]
"""Kept histories, and what is decoded over them."""


def with_quickest_decoder(session: Session, *, worth: float = WORTH) -> Session:
    """Let another runtime decode if it can, gives torch's numbers and is quicker; the log says what was found.

    Args:
        service: just opened.
        worth: times quicker from which on it is used.

    Returns:
        The service with `decoder_facts`: `runtime` and `reason`; where both ran also the `difference` of their numbers,
        the milliseconds of a request alone (`torch_ms`, and `onnxruntime_ms` or `cuda_graphs_ms`), and `speed`, how
        many times quicker than torch the other was over single requests and several together.
    """
    recommender, decode = session.recommender, None
    name = ONNX if recommender.start_D.device.type == "cpu" else GRAPHS
    detail: dict[str, Any] = {}
    if not recommender.decoder.offers(OFFERS[name]):
        facts = _by_torch(f"the block {recommender.config.model.block!r} has no form for {TITLES[name]}")
        log("decoder", **facts)
        return session._replace(decode=None, decoder_facts=facts)
    try:
        decode = decoder_of(recommender, name)
        facts = judge(recommender, decode, probes(session), name=name, worth=worth)
    except Exception as error:  # whatever keeps it from running, torch does the same work
        facts = _by_torch(f"{TITLES[name]} cannot run it ({type(error).__name__})")
        detail = {"detail": str(error)}
    log("decoder", **facts, **detail)
    return session._replace(decode=decode if facts["runtime"] == name else None, decoder_facts=facts)


def decoder_of(recommender: Recommender, name: str) -> Decode:
    """A model's decoder, made ready for a runtime: `onnxruntime` or `cuda_graphs`."""
    shape = recommender.prompt_shape()
    if name == ONNX:
        return export(recommender.decoder, per_candidate=shape.per_candidate)
    longest = shape.memory_tokens + shape.max_history * shape.per_event
    sizes = {
        Size(requests, math.ceil(share * longest), shape.per_query + most * shape.per_candidate)
        for requests, most in HELD
        for share in SHARES
        if shape.per_query + most
    }
    held = [size for size in sizes if history_bytes(recommender.decoder, size) <= CAPTURED_BYTES]
    return CudaGraphs(recommender.decoder, held, shape)


def probes(session: Session) -> list[Pass]:
    """What is decoded to compare: a request alone, several with one of nobody known, and all with candidates."""
    users = [*spread_users(session.histories, MAX_SHARED_CANDIDATES - 1), unknown_user_id(session)]
    some = tuple({ITEM_ID: item} for item in session.items.item_ids[:N_CANDIDATES].tolist())
    best = [PredictRequest(RECOMMEND, user) for user in users]
    scored = [PredictRequest(SCORE, user, candidates=some) for user in users]
    return [decoder_inputs(session, requests) for requests in (best[:1], best, scored)]


def judge(
    recommender: Recommender, decode: Decode, passes: Sequence[Pass], *, name: str = ONNX, worth: float = WORTH
) -> dict[str, Any]:
    """Compare what `name` made of the decoder with torch; the facts that are given above."""
    ways: dict[str, Decode | None] = {TORCH: None, name: decode}
    states = {way: [decode_over(recommender, *one, does)[0] for one in passes] for way, does in ways.items()}
    difference = max(_difference(*both) for both in zip(*states.values(), strict=True))
    found: dict[str, Any] = {"difference": float(f"{difference:.1e}") if math.isfinite(difference) else None}
    if not difference <= TOLERANCE:  # also where it is not a number
        return _by_torch(f"{TITLES[name]} gives other numbers") | found
    seconds = {way: [float("inf")] * len(passes) for way in ways}
    for _ in range(ROUNDS):
        for number, one in enumerate(passes):
            for way, does in ways.items():
                began = _now()
                decode_over(recommender, *one, does)
                seconds[way][number] = min(seconds[way][number], _now() - began)
    found |= {f"{way}_ms": round(1000 * spent[0], 3) for way, spent in seconds.items()}
    speed = sum(seconds[TORCH]) / sum(seconds[name])
    found["speed"] = round(speed, 2)
    if speed < worth:
        return _by_torch(f"{TITLES[name]} is not {worth:g} times as quick") | found
    return {"runtime": name, "reason": "it is quicker"} | found


def _now() -> float:
    """Seconds: of this thread's work, as the release in service may be answering beside; of the clock on a GPU."""
    if torch.get_default_device().type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _by_torch(reason: str) -> dict[str, Any]:
    return {"runtime": TORCH, "reason": reason}


def _difference(one: States, other: States) -> float:
    """The largest difference of a number, in proportion where the numbers are above 1."""

    def largest(x: Tensor, y: Tensor) -> float:
        differing = torch.where(x == y, 0.0, (x - y).abs() / x.abs().clamp(min=1))
        found = float(differing.max()) if x.numel() else 0.0
        return math.inf if math.isnan(found) else found

    mine, theirs = ((x.request_RD, x.candidate_logit_C, *x.head) for x in (one, other))
    return max(largest(*both) for both in zip(mine, theirs, strict=True))
