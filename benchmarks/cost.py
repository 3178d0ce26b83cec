"""What taking signals in costs: soft tokens against text, one token a signal, and no signals at all.

    python -m benchmarks.cost [--d-model 128 --layers 4 --events 50 --rounds 15]

One user is a prompt of `--events` events and a query of 30 signals (20 numbers, 8 categories, 2 bags), with one item
to be scored. All variants run in one process, in turn within each round, so that figures are ratios of one run. A
training step is forward, backward and optimizer over `--users` users; latency is that of one user, laying out included:
of the whole prompt, and of query and item over the history's kept keys and values, which is what a server does for a
user it has seen before.
Peak memory is of a process that does a few training steps of one variant alone, above what it held before the first.
Cache bytes are the keys and values of a user's history and query, in float32. The factory's share of a step is its
tokens, and the vectors of all items for the softmax, forward and backward.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import positive, run
from benchmarks.common import PROJECT, keep_table, machine, markdown
from benchmarks.thirty_signals import thirty_signals
from lrm.config import NONE, TEXT, ModelConfig, RunConfig, TokensConfig
from lrm.model.kv_cache import Suffix, decode_over, prefill
from lrm.model.recommender import Recommender
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.prompt import Batch, build_batch
from lrm.tokens.segments import scoring_segments
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.objectives import next_item, ranking, retrieval
from lrm.training.optimizer import make_optimizer, step
from lrm.training.training_windows import overlapping_windows

N_HEADS = 4
VARIANTS: dict[str, TokensConfig] = {
    "soft": TokensConfig(),
    "twice the query tokens": TokensConfig(n_query_tokens=4),
    "no signals": TokensConfig(variant=NONE, n_query_tokens=1),
    "one token a signal": TokensConfig(n_query_tokens=30),
    "signals as text": TokensConfig(variant=TEXT, text_events=False),
    "everything as text": TokensConfig(variant=TEXT),
}


class Variant(NamedTuple):
    """One variant, ready to be timed."""

    recommender: Recommender
    train: Callable[[], None]
    tokens_only: Callable[[], None]
    answer: Callable[[], None]
    answer_over: Callable[[], None]
    """The same, where the history was decoded before."""
    prompt_tokens: int
    cached_tokens: int


def ready(tokens: TokensConfig, options: argparse.Namespace) -> Variant:
    """Build the variant's model and the batches that it is timed on."""
    tables, signals = thirty_signals(n_users=options.users, n_events=options.events)
    d_model, n_layers, most = options.d_model, options.layers, options.events
    model = ModelConfig(d_model=d_model, n_layers=n_layers, n_heads=N_HEADS, n_kv_heads=N_HEADS, max_history=most)
    config = RunConfig(name="cost", tokens=replace(tokens, min_item_count=1), model=replace(model, dropout=0.0))
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    torch.manual_seed(0)
    recommender = Recommender(config, signals, vocabulary)
    corpus = encode_corpus(tables, signals, vocabulary)
    shape = recommender.prompt_shape()
    batch = build_batch(corpus, overlapping_windows(corpus, max_history=options.events), shape)
    optimizer = make_optimizer(recommender, config.training)
    losses = Losses(recommender, TrainingData(corpus, recommender))

    def train() -> None:
        loss = _loss(recommender.train(), batch, losses)
        step(recommender, optimizer, loss, rate=1e-4, clip=1.0, where="the benchmark")

    every_item = np.arange(len(corpus.item_ids))

    def tokens_only() -> None:
        recommender.zero_grad()
        identities = torch.as_tensor(corpus.item_identity_V)
        items = recommender.factory.item_vectors(identities, corpus.content_V.take(every_item))
        torch.cat([*recommender.tokens(batch), items]).sum().backward()  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def answer() -> None:
        one = scoring_segments(corpus, np.array([0]), max_history=options.events)
        recommender(build_batch(corpus, one, shape))

    prefixes = prefill(recommender, corpus, np.array([0]))

    def answer_over() -> None:
        first, end = corpus.candidate_offset_R[:2]
        items = np.arange(first, end)
        identities = torch.as_tensor(corpus.candidate_identity_C[items])
        suffix = Suffix(
            corpus.query_R.take(np.array([0])),
            corpus.candidate_C.take(items),
            identities,
            np.array([end - first]),
            corpus.request_time_R[:1],
        )
        decode_over(recommender, prefixes, suffix)

    n_cached = options.events * shape.per_event + shape.per_query
    return Variant(recommender, train, tokens_only, answer, answer_over, n_cached + shape.per_candidate, n_cached)


def _loss(recommender: Recommender, batch: Batch, losses: Losses) -> torch.Tensor:
    states, context = recommender(batch), losses.context(batch, np.random.default_rng(0))
    return next_item.loss(states, context) + retrieval.loss(states, context) + ranking.loss(states, context)


def flops(work: Callable[[], None]) -> int:
    """Floating-point operations of matrix products and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_memory(name: str, arguments: list[str]) -> float:
    """Megabytes that training steps of one variant need, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cost", *arguments, "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT).stdout.split()[-1])


def memory_of(name: str, options: argparse.Namespace) -> None:
    """Print what three training steps of one variant add to this process' peak."""
    variant = ready(VARIANTS[name], options)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of building the batch
    before = _memory("VmRSS")
    for _ in range(3):
        variant.train()
    print((_memory("VmHWM") - before) / 1024)


def _memory(what: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{what}:")))


def main() -> None:
    """Time all variants in turn, and print one table of ratios to soft tokens."""
    options = parsed()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        memory_of(options.memory_of, options)
        return
    began = time.monotonic()
    variants = {name: ready(tokens, options) for name, tokens in VARIANTS.items()}
    parts = ("train", "factory", "latency", "over")
    times: dict[str, dict[str, list[float]]] = {name: {part: [] for part in parts} for name in variants}
    for round_ in range(options.rounds + 1):  # the first warms up
        for name, variant in variants.items():
            variant.train()  # a warm-up: what the previous variant left in memory is not this one's cost
            taken = {"train": seconds(variant.train), "factory": seconds(variant.tokens_only)}
            variant.recommender.eval()
            taken["latency"] = statistics.median(seconds(variant.answer) for _ in range(5))
            taken["over"] = statistics.median(seconds(variant.answer_over) for _ in range(5))
            for what, value in taken.items() if round_ else ():
                times[name][what].append(value)
    rows, kept = [], {}
    arguments = [f"--d-model={options.d_model}", f"--layers={options.layers}", f"--events={options.events}"]
    arguments += [f"--users={options.users}", f"--threads={options.threads}"]
    for name, variant in variants.items():
        attention = variant.recommender.decoder.blocks[0].attention
        cache = variant.cached_tokens * options.layers * 2 * attention.n_kv_heads * attention.width * 4
        kept[name] = {
            "tokens": variant.prompt_tokens,
            "flops": flops(variant.train),
            "memory": peak_memory(name, arguments),
            "cache": cache,
            **{what: statistics.median(values) for what, values in times[name].items()},
        }
    for name, found in kept.items():
        soft = kept["soft"]
        rows.append(
            (
                name,
                found["tokens"],
                f"{found['flops'] / soft['flops']:.2f}",
                _ratio(times[name]["train"], times["soft"]["train"]),
                _ratio(times[name]["latency"], times["soft"]["latency"]),
                _ratio(times[name]["over"], times["soft"]["over"]),
                f"{found['memory'] / soft['memory']:.2f}",
                f"{found['cache'] / 1024:,.0f}",
                f"{found['factory'] / found['train']:.1%}",
            )
        )
    header = ("variant", "prompt tokens", "FLOPs", "train step", "latency", "latency, history kept", "peak memory")
    print(markdown((*header, "cache KiB a user", "factory's share of a step"), rows))
    soft = kept["soft"]
    print(
        f"\nRatios to soft tokens, median [quartiles] of {options.rounds} interleaved rounds. Soft: train step "
        f"{soft['train'] * 1e3:.0f} ms for {options.users} users, latency {soft['latency'] * 1e3:.2f} ms "
        f"({soft['over'] * 1e3:.2f} ms over a kept history), {soft['memory']:.0f} MB. d{options.d_model} "
        f"L{options.layers}, {options.events} events; {machine()}; {time.monotonic() - began:.0f} s"
    )
    keep_table("cost", kept)


def _ratio(values: list[float], others: list[float]) -> str:
    """The median of the rounds' ratios with its quartiles."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(values, others, strict=True)], n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-model", type=positive, default=128)
    parser.add_argument("--layers", type=positive, default=4)
    parser.add_argument("--events", type=positive, default=50)
    parser.add_argument("--users", type=positive, default=16, help="in a training step")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--threads", type=positive, default=1, help="of torch")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.d_model % (2 * N_HEADS):
        parser.error(f"--d-model {options.d_model} must be an even multiple of the {N_HEADS} heads")
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds} is too few for quartiles; take 2 or more")
    return options


if __name__ == "__main__":
    run(main)
