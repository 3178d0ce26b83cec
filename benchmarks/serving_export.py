"""One pass of a server over kept histories: by torch, by what a server might use in its place, and compiled.

    python -m benchmarks.serving_export [--rounds 15 --compiled]

A pass is what `lrm.model.kv_cache.decode_over` does for requests that wait together: lay out, make their tokens of 30
signals, decode them and their candidates over the kept histories, read the states off. One thread, random weights, all
ways in one process and in turn, so that ratios are of one run. On a processor it is ONNX Runtime, and time is that of
the processor; on a GPU (`LRM_DEVICE`) it is captured CUDA graphs, time is that of the clock, and the model is d512 L8
over 500 events. Both take the decoder alone; so does `torch.compile`, which needs a compiler where the server runs, and
a minute for each model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.command import positive, run
from benchmarks.common import keep_table, machine, markdown
from benchmarks.thirty_signals import thirty_signals
from lrm.config import ModelConfig, RunConfig, TokensConfig
from lrm.model.decoder import Decode
from lrm.model.device import use_device
from lrm.model.kv_cache import Prefix, Suffix, decode_over, prefill
from lrm.model.recommender import Recommender
from lrm.serving.engine.decoding import GRAPHS, ONNX, TORCH, decoder_of
from lrm.tokens.corpus import encode_corpus, fit_vocabulary

MODELS = ((64, 2, 2), (128, 4, 4))
"""Width, layers and heads: the preset `default`, and one that costs eight times as much."""
EVENTS = (50, 200)
GPU_MODELS, GPU_EVENTS = ((512, 8, 8),), (500,)
PASSES = ((1, 0), (1, 200), (8, 0), (8, 20), (32, 0), (32, 20))
"""Requests together, and candidates of each; 0: the best of the catalogue is asked for."""
AT_LEAST_S = 0.02
"""Each way repeats its pass for so long in a round."""
COMPILED = "torch.compile"
Pass = tuple[list[Prefix], Suffix]


class Way(NamedTuple):
    """A model, and what decodes in it."""

    recommender: Recommender
    decode: Decode | None = None


def ready(d_model: int, n_layers: int, n_heads: int, n_events: int) -> tuple[Recommender, dict[tuple[int, int], Pass]]:
    """A model of random weights, and its passes by requests and candidates."""
    n_users = max(together for together, _ in PASSES)
    tables, signals = thirty_signals(n_users=n_users, n_events=n_events)
    model = ModelConfig(d_model=d_model, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_heads, max_history=n_events)
    config = RunConfig(tokens=TokensConfig(min_item_count=1), model=model)
    torch.manual_seed(0)
    recommender = Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens)).eval()
    for weight in recommender.decoder.parameters():  # blocks begin as the identity
        weight.data += 0.05 * torch.randn_like(weight)
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    prefixes, passes = prefill(recommender, corpus), {}
    for together, each in PASSES:
        rows = np.arange(together * each) % n_users
        identity = torch.as_tensor(corpus.candidate_identity_C[rows])
        queries = corpus.query_R.take(np.arange(together))
        times = corpus.request_time_R[:together]
        suffix = Suffix(queries, corpus.candidate_C.take(rows), identity, np.full(together, each), times)
        passes[together, each] = (prefixes[:together], suffix)
    return recommender, passes


def ways_of(recommender: Recommender, *, compiled: bool) -> dict[str, Way]:
    """The ways to decode."""
    other = ONNX if torch.get_default_device().type == "cpu" else GRAPHS
    ways = {TORCH: Way(recommender), other: Way(recommender, decoder_of(recommender, other))}
    if compiled:
        ways[COMPILED] = Way(deepcopy(recommender))
        ways[COMPILED].recommender.decoder.compile(dynamic=True)
    return ways


def milliseconds(ways: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way, in every round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    repeats = {}
    for name, work in ways.items():
        work()  # warms up
        began = time.perf_counter()
        work()
        repeats[name] = max(1, round(AT_LEAST_S / (time.perf_counter() - began)))
    for _ in range(rounds):
        for name, work in ways.items():
            began = _now()
            for _ in range(repeats[name]):
                work()
            taken[name].append(1000 * (_now() - began) / repeats[name])
    return taken


def _now() -> float:
    """Seconds: of the processor's work, or of the clock where a GPU does it."""
    if torch.get_default_device().type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Print one table."""
    options, began = parsed(), time.monotonic()
    torch.set_num_threads(options.threads)
    on_gpu = use_device().type == "cuda"
    rows, kept, furthest = [], [], 0.0
    for model in GPU_MODELS if on_gpu else MODELS:
        for n_events in GPU_EVENTS if on_gpu else EVENTS:
            recommender, passes = ready(*model, n_events)
            ways = ways_of(recommender, compiled=options.compiled)
            for (together, each), one in passes.items():
                works = {name: _work(way, one) for name, way in ways.items()}
                furthest = max(furthest, *(_difference(ways[TORCH], way, one) for way in ways.values()))
                taken = milliseconds(works, rounds=options.rounds)
                cell = {"model": f"d{model[0]} L{model[1]}", "events": n_events, "requests": together, "each": each}
                kept.append(cell | taken)
                medians = [f"{statistics.median(taken[name]):.2f}" for name in ways]
                rows.append((*cell.values(), *medians, *(_ratio(taken[TORCH], taken[way]) for way in list(ways)[1:])))
    names = list(ways)
    header = ("model", "events", "requests", "candidates each", *(f"{name} ms" for name in names))
    print(markdown((*header, *(f"{name} is x times quicker" for name in names[1:])), rows))
    told = f"{'Time' if on_gpu else 'CPU time'}, median [least, most] of {options.rounds} rounds"
    told += f"; largest difference of a number {furthest:.0e}"
    print(f"\n{told}; {machine()}; {time.monotonic() - began:.0f} s")
    keep_table("serving_export", {"cells": kept})


def _work(way: Way, one: Pass) -> Callable[[], object]:
    return lambda: decode_over(way.recommender, *one, way.decode)


def _difference(one: Way, other: Way, of: Pass) -> float:
    """The largest difference of a number of the states."""
    mine, theirs = (decode_over(way.recommender, *of, way.decode)[0] for way in (one, other))
    pairs = ((mine.request_RD, theirs.request_RD), (mine.candidate_logit_C, theirs.candidate_logit_C))
    return max(float((x - y).abs().max()) for x, y in pairs if x.numel())


def _ratio(values: list[float], others: list[float]) -> str:
    ratios = [a / b for a, b in zip(values, others, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile too")
    parser.add_argument("--threads", type=positive, default=1, help="of torch; ONNX Runtime has one")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
