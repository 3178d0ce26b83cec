"""Which runtime decodes requests over kept histories: torch, or ONNX Runtime where that is measured to be quicker."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrm.model.exported import Exported, export
from lrm.model.prefix import Prefix, Suffix, decode_over
from lrm.model.recommender import Recommender, States
from lrm.schema import ITEM_ID
from lrm.serving.answer import one_pass
from lrm.serving.histories import spread_users
from lrm.serving.logs import log
from lrm.serving.question import RECOMMEND, SCORE, Question
from lrm.serving.service import Service, nobody

TORCH, ONNX = "torch", "onnxruntime"
TOGETHER, N_CANDIDATES = 8, 2
"""Users of the larger measured passes, and candidates of each: what a server under load decodes at once."""
ROUNDS = 5
TOLERANCE = 1e-4
"""Difference up to which an export is the same model, of numbers up to 1; of greater ones, in proportion."""
WORTH = 1.1
"""Times quicker from which on it is used."""
Pass = tuple[list[Prefix], Suffix]
"""Kept histories, and what is decoded over them."""


def with_quickest_decoder(service: Service, *, worth: float = WORTH) -> Service:
    """Let ONNX Runtime decode if it can, gives torch's numbers and is quicker; the log says what was found.

    Args:
        service: just opened.
        worth: times quicker from which on it is used.

    Returns:
        The service with `decoder_facts`: `runtime` and `reason`; where both ran also the `difference` of their numbers,
        the milliseconds of a request alone (`torch_ms`, `onnxruntime_ms`), and `speed`, how many times quicker ONNX
        Runtime was over single requests and several together.
    """
    exported, facts = None, _by_torch("the model is on a GPU")
    detail: dict[str, Any] = {}
    if service.items.catalogue.vectors_VD.device.type == "cpu":
        passes, per_candidate = probes(service), service.recommender.prompt_shape().per_candidate
        try:
            exported = export(service.recommender.decoder, per_candidate=per_candidate)
            facts = judge(service.recommender, exported, passes, worth=worth)
        except Exception as error:  # whatever keeps it from running, torch does the same work
            facts, detail = _by_torch(f"ONNX Runtime cannot run it ({type(error).__name__})"), {"detail": str(error)}
    log("decoder", **facts, **detail)
    return service._replace(exported=exported if facts["runtime"] == ONNX else None, decoder_facts=facts)


def probes(service: Service) -> list[Pass]:
    """What is decoded to compare: a request alone, several with one of nobody known, and all with candidates."""
    users = [*spread_users(service.histories, TOGETHER - 1), nobody(service)]
    some = tuple({ITEM_ID: item} for item in service.items.item_ids[:N_CANDIDATES].tolist())
    best = [Question(RECOMMEND, user) for user in users]
    scored = [Question(SCORE, user, candidates=some) for user in users]
    return [one_pass(service, questions) for questions in (best[:1], best, scored)]


def judge(
    recommender: Recommender, exported: Exported, passes: Sequence[Pass], *, worth: float = WORTH
) -> dict[str, Any]:
    """Compare an export with torch; the facts that are given above."""
    ways: dict[str, Exported | None] = {TORCH: None, ONNX: exported}
    states = {name: [decode_over(recommender, *one, way)[0] for one in passes] for name, way in ways.items()}
    difference = max(_difference(*both) for both in zip(*states.values(), strict=True))
    found: dict[str, Any] = {"difference": float(f"{difference:.1e}") if math.isfinite(difference) else None}
    if not difference <= TOLERANCE:  # also where it is not a number
        return _by_torch("ONNX Runtime gives other numbers") | found
    seconds = {name: [float("inf")] * len(passes) for name in ways}
    for _ in range(ROUNDS):
        for number, one in enumerate(passes):
            for name, way in ways.items():
                began = time.thread_time()  # the release in service may be answering beside
                decode_over(recommender, *one, way)
                seconds[name][number] = min(seconds[name][number], time.thread_time() - began)
    found |= {f"{name}_ms": round(1000 * spent[0], 3) for name, spent in seconds.items()}
    speed = sum(seconds[TORCH]) / sum(seconds[ONNX])
    found["speed"] = round(speed, 2)
    if speed < worth:
        return _by_torch(f"ONNX Runtime is not {worth:g} times as quick") | found
    return {"runtime": ONNX, "reason": "it is quicker"} | found


def _by_torch(reason: str) -> dict[str, Any]:
    return {"runtime": TORCH, "reason": reason}


def _difference(one: States, other: States) -> float:
    """The largest difference of a number, in proportion where the numbers are above 1."""

    def largest(x: Tensor, y: Tensor) -> float:
        differing = torch.where(x == y, 0.0, (x - y).abs() / x.abs().clamp(min=1))
        found = float(differing.max()) if x.numel() else 0.0
        return math.inf if math.isnan(found) else found

    mine, theirs = ((x.request_RD, x.candidate_logit_C, *x.pointed) for x in (one, other))
    return max(largest(*both) for both in zip(mine, theirs, strict=True))
