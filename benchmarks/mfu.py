"""Model-FLOPs utilisation of a joint training step: the share of a device's peak that goes into the model's arithmetic.

    python -m benchmarks.mfu [--d-model 512 --layers 8 --events 512 --users 16] [--peak-tflops 989]

Utilisation = FLOPs of a step / seconds of a step / peak. FLOPs are counted by formula, two for each multiplication and
addition, of forward and backward together (three times the forward products), over valid tokens alone:

    layers     3 * 2 * tokens * layers * (d * (heads + 2 kv heads) * head width + d * d + 3 * d * hidden)
    attention  3 * 4 * layers * d * pairs, a pair being a token and one that it sees (`lrm.tokens.prompt`), itself too
    catalogue  3 * 2 * predictions * d * classes of the softmax

What the token factory, norms, rotations and the optimizer compute is not counted, but is in the time, as is building
the batch. Users have `--events` events each, 30 query signals and one candidate. The step is in bfloat16 on a GPU and
in float32 on a processor, whose peak is what a large matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.command import positive, rate, run
from benchmarks.common import machine, markdown
from benchmarks.thirty_signals import thirty_signals
from lrm.config import ModelConfig, RunConfig, TokensConfig, TrainingConfig
from lrm.errors import SchemaError
from lrm.model.device import use_device
from lrm.model.recommender import Recommender
from lrm.tokens.corpus import Corpus, encode_corpus, fit_vocabulary
from lrm.tokens.prompt import Batch, build_batch
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.optimizer import make_optimizer, step
from lrm.training.targets import draw_targets
from lrm.training.training_windows import overlapping_windows

PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0, "L4": 121.0}
"""Dense bfloat16, as the makers state it (of H100 and H200 the SXM form), by a word of the device's name."""
HEAD_WIDTH, N_QUERY_TOKENS, WARM_UP = 64, 4, 3


class Flops(NamedTuple):
    """Of one step, forward and backward."""

    layers: int
    attention: int
    catalogue: int


def flops(batch: Batch, corpus: Corpus, config: ModelConfig) -> Flops:
    """The formulas above, for a softmax over the whole catalogue."""
    d, layout = config.d_model, batch.layout
    kv_width = d // config.n_heads * config.n_kv_heads
    hidden = int(config.ffn_multiple * d)
    a_token = d * (d + 2 * kv_width) + d * d + 3 * d * hidden
    n_candidate = len(batch.candidates) * layout.shape.per_candidate
    pairs = int((layout.position_N[: len(layout.history_slot_H)] + 1).sum() + layout.shown_N.sum())
    pairs += len(layout.shown_N) * layout.shape.per_query + n_candidate * layout.shape.per_candidate
    targets = draw_targets(batch, corpus, np.random.default_rng(0))
    return Flops(
        layers=3 * 2 * batch.n_tokens * config.n_layers * a_token,
        attention=3 * 4 * config.n_layers * d * pairs,
        catalogue=3 * 2 * len(targets.rows) * d * len(corpus.item_ids),
    )


def seconds(work: Callable[[], object], *, times: int) -> list[float]:
    """Of each turn, until the device has done all of it; the first turns warm up and do not count."""
    taken = []
    for _ in range(WARM_UP + times):
        began = time.perf_counter()
        work()
        if torch.get_default_device().type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[WARM_UP:]


def peak_flops() -> float:
    """FLOPs a second that the device can do: of a GPU as stated, of a processor as measured."""
    if torch.get_default_device().type == "cuda":
        return stated_peak(torch.cuda.get_device_name())
    side, matrix = 2048, torch.randn(2048, 2048)
    return 2 * side**3 / min(seconds(lambda: matrix @ matrix, times=5))


def stated_peak(name: str) -> float:
    """Dense bfloat16 FLOPs a second of a GPU.

    Raises:
        SchemaError: no such GPU is known here.
    """
    words = name.replace("-", " ").split()
    known = [PEAK_TFLOPS[word] for word in words if word in PEAK_TFLOPS]
    if known and not {"PCIe", "NVL"} & set(words):  # slower forms of the same chips
        return known[0] * 1e12
    raise SchemaError(f"the peak of {name!r} is not known here; give its dense bfloat16 rate as --peak-tflops")


def heads(d_model: int) -> int:
    """Of `HEAD_WIDTH` numbers or more each."""
    return max(1, d_model // HEAD_WIDTH)


def main() -> None:
    """Time the step and print the table."""
    options = parsed()
    torch.set_num_threads(options.threads)
    device, began = use_device(tf32=True), time.monotonic()
    n_heads = heads(options.d_model)
    model = ModelConfig(
        d_model=options.d_model,
        n_layers=options.layers,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        max_history=options.events,
    )
    training = TrainingConfig(bfloat16=device.type == "cuda", full_softmax_items=5_000)
    tokens = TokensConfig(n_query_tokens=N_QUERY_TOKENS, min_item_count=1)
    config = RunConfig(name="mfu", tokens=tokens, model=model, training=training)
    tables, signals = thirty_signals(n_users=options.users, n_events=options.events)
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    torch.manual_seed(0)
    recommender, corpus = Recommender(config, signals, vocabulary), encode_corpus(tables, signals, vocabulary)
    segments = overlapping_windows(corpus, max_history=options.events)
    losses = Losses(recommender, TrainingData(corpus, recommender))
    optimizer = make_optimizer(recommender, training)

    def joint_step() -> None:
        total = losses.total(losses.of_step(segments, seed=0, at=0))
        step(recommender, optimizer, total, rate=1e-4, clip=1.0, where="the benchmark")

    batch = build_batch(corpus, segments, recommender.prompt_shape())
    counted = flops(batch, corpus, model)
    peak = options.peak_tflops * 1e12 if options.peak_tflops else peak_flops()
    low, middle, high = statistics.quantiles(seconds(joint_step, times=options.steps), n=4)
    parts = (f"{part / 1e12:.4g}" for part in counted)
    reached = sum(counted) / middle
    header = ("tokens", "TFLOPs: layers", "attention", "catalogue", "ms a step", "TFLOP/s", "peak", "utilisation")
    spread = f"{middle * 1e3:.1f} [{low * 1e3:.1f}, {high * 1e3:.1f}]"
    row = (batch.n_tokens, *parts, spread, f"{reached / 1e12:.4g}", f"{peak / 1e12:.4g}", f"{reached / peak:.1%}")
    print(markdown(header, [row]))
    where = torch.cuda.get_device_name() if device.type == "cuda" else "a processor"
    print(
        f"\nMedian [quartiles] of {options.steps} steps of {options.users} users on {where}, d{options.d_model} "
        f"L{options.layers}, {options.events} events, {'bfloat16' if training.bfloat16 else 'float32'}; {machine()}; "
        f"{time.monotonic() - began:.0f} s"
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-model", type=positive, default=512)
    parser.add_argument("--layers", type=positive, default=8)
    parser.add_argument("--events", type=positive, default=512)
    parser.add_argument("--users", type=positive, default=16, help="in a step")
    parser.add_argument("--steps", type=positive, default=20)
    parser.add_argument("--peak-tflops", type=rate, help="of the device; known for H100, H200, A100 and L4")
    parser.add_argument("--threads", type=positive, default=1, help="of torch")
    options = parser.parse_args()
    if options.d_model % (2 * heads(options.d_model)):
        parser.error(f"--d-model {options.d_model} must be an even multiple of its {heads(options.d_model)} heads")
    if options.steps < 2:
        parser.error(f"--steps {options.steps} is too few for quartiles; take 2 or more")
    return options


if __name__ == "__main__":
    run(main)
