import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_mask, flex_attention

from lrm.config import ModelConfig
from lrm.features.tables import read, read_declared
from lrm.model import artifact
from lrm.model.blocks.softmax_attention import Block
from lrm.model.decoder import Decoder
from lrm.model.device import DEVICE
from lrm.model.flex_attention import MOST_SIZES, SMALLEST, can_use_flex, compiled, flex_mask, padded_size
from lrm.model.recommender import Recommender
from lrm.presets import preset
from lrm.tokens.corpus import fit_vocabulary
from lrm.tokens.layout import Layout, lay_out
from lrm.tokens.segments import PromptShape
from tests.worlds import random_weights, write_examples

ONE = PromptShape(per_event=1, per_query=1, per_candidate=1, max_history=99)
SHAPES = {
    "one token each": ONE,
    "many tokens each": ONE._replace(per_event=2, per_query=4, per_candidate=3),
    "memory": ONE._replace(per_query=2, older_events=6, memory_tokens=3),
    "no query": ONE._replace(per_query=0),
    "elastic, cut to two": ONE._replace(per_query=2, per_candidate=2),
}
A_STEP = """
import sys, torch
from pathlib import Path
from lrm.features.tables import read
from lrm.model import artifact, flex_attention
from lrm.model.device import use_device
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.training_windows import overlapping_windows
device, recommender = use_device().type, artifact.load(Path(sys.argv[1]))
corpus = recommender.encode(read(Path(sys.argv[2])))
losses = Losses(recommender, TrainingData(corpus, recommender))
sum(losses.of_step(overlapping_windows(corpus, max_history=16), seed=0, at=0).values()).backward()
assert flex_attention.compiled.cache_info().currsize == (1 if device == "cuda" else 0)
moved = {name: p.grad for name, p in recommender.named_parameters() if p.grad is not None}
torch.save({name: gradient.to_dense().float().cpu() for name, gradient in moved.items()}, sys.argv[3])
"""


def layout_of(shape: PromptShape, *, n_requests: tuple[int, ...] = (2, 0, 3)) -> Layout:
    """Three users with 5, 1 and 7 events; requests anywhere along them, the first with no candidate, then 1, 2, ..."""
    n_events, asked = np.array([5, 1, 7]), np.array(n_requests)
    start, total = np.cumsum(n_events) - n_events, int(asked.sum())
    return lay_out(
        shape,
        n_events=n_events,
        n_memory=np.array([1, 0, 1]) * shape.memory_tokens,
        n_requests=asked,
        n_candidates=np.arange(total),
        now_R=np.repeat(start, asked) + np.arange(total) % (np.repeat(n_events, asked) + 1),
        start_G=start,
        row_E=np.arange(n_events.sum()),
        event_time_E=np.arange(n_events.sum(), dtype=float),
        request_time_R=np.arange(total, dtype=float),
    )


@pytest.fixture(params=[(4, 4), (4, 2), (4, 1)], ids=lambda heads: f"{heads[0]} heads on {heads[1]}")
def decoder(request) -> Decoder:
    torch.manual_seed(0)
    n_heads, n_kv_heads = request.param
    config = ModelConfig(d_model=64, n_layers=2, n_heads=n_heads, n_kv_heads=n_kv_heads, dropout=0.0)
    return random_weights(Decoder(config, n_positions=99)).train()


def test_who_sees_whom_is_the_rule_of_the_prompt():
    layout = lay_out(
        PromptShape(per_event=1, per_query=1, per_candidate=2, max_history=9, older_events=4, memory_tokens=1),
        n_events=np.array([2, 1]),
        n_memory=np.array([1, 0]),
        n_requests=np.array([1, 0]),
        n_candidates=np.array([2]),
        now_R=np.array([1]),
        start_G=np.array([0, 2]),
        row_E=np.arange(3),
        event_time_E=np.zeros(3),
        request_time_R=np.zeros(1),
    )
    sees = create_mask(flex_mask(layout).mask_mod, 1, 1, SMALLEST, SMALLEST, device="cpu")[0, 0]
    assert ["".join(".x"[int(k)] for k in row) for row in sees[:9, :9]] == [
        "x........",  # memory of the first user
        "xx.......",  # its first event
        "xxx......",  # its second event, after the request
        "...x.....",  # the second user's event
        "xx..x....",  # the request
        "xx..xxx..",  # its first candidate, two tokens
        "xx..xxx..",
        "xx..x..xx",  # its second candidate
        "xx..x..xx",
    ]
    assert torch.equal(sees[9:], torch.eye(SMALLEST, dtype=torch.bool)[9:])
    assert not sees[:9, 9:].any()


@pytest.mark.parametrize("n_requests", [(2, 0, 3), (0, 0, 0)], ids=["requests", "events alone"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_packed_and_padded_decoding_agree_in_states_and_gradients(decoder, shape, n_requests):
    layout = layout_of(shape, n_requests=n_requests)
    x_ND = torch.randn(len(layout.position_N), 64, requires_grad=True)
    weight_ND = torch.randn(len(x_ND), 64)
    found = []
    for states_ND in (decoder(x_ND, layout)[0], decoder.packed(x_ND, layout, Block.packed)):
        found.append((states_ND, *torch.autograd.grad((states_ND * weight_ND).sum(), [x_ND, *decoder.parameters()])))
    for padded, packed in zip(*found, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("decoder", [(4, 2)], indirect=True, ids=["4 heads on 2"])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor", "ignore:.*Function'> should not be instantiated")
def test_a_layer_compiles_as_a_whole_and_once_for_a_size(decoder):
    """As on a GPU, but for the compiler: every layer, every batch and every rule of who sees whom runs one program."""
    programs: list[torch.fx.GraphModule] = []

    def count(program: torch.fx.GraphModule, _inputs: list[torch.Tensor]):
        programs.append(program)
        return program.forward

    layer, sizes = compiled(Block.packed, backend=count), []
    few, many = (2, 0, 3), (40, 0, 20)
    for shape, n_requests in [*((shape, few) for shape in SHAPES.values()), (ONE, many), (ONE, few), (ONE, many)]:
        layout = layout_of(shape, n_requests=n_requests)
        x_ND = torch.randn(len(layout.position_N), 64, requires_grad=True)
        states_ND = decoder.packed(x_ND, layout, layer)
        torch.testing.assert_close(states_ND, decoder(x_ND, layout)[0], atol=1e-5, rtol=1e-4)
        sizes.append(padded_size(len(x_ND)))
    assert sizes == [SMALLEST] * 5 + [2 * SMALLEST, SMALLEST, 2 * SMALLEST]
    assert len(programs) == 2


def test_numbers_of_tokens_are_made_up_by_a_third_at_most_beyond_the_smallest():
    made = {n: padded_size(n) for n in range(1, 40_000)}
    assert made[1] == made[SMALLEST] == SMALLEST
    assert all(n <= size for n, size in made.items())
    assert max(size / n for n, size in made.items() if n > 3 * SMALLEST) < 1.34
    assert len(set(made.values())) <= MOST_SIZES // 3, "each is compiled for"
    assert {size % 128 for size in made.values()} == {0}, "no block of the mask is cut"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_reads_the_mask_as_it_is_written_out():
    """The kernel skips blocks by the mask's own tables; its plain form on a processor reads the same mask."""
    mask = flex_mask(layout_of(SHAPES["many tokens each"]))
    q, k, v = (torch.randn(1, heads, SMALLEST, 16) for heads in (4, 2, 2))
    written = create_mask(mask.mask_mod, 1, 1, SMALLEST, SMALLEST, device="cpu")
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=written, enable_gqa=True)
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=mask, enable_gqa=True), wanted)
    n_blocks = SMALLEST // 128
    is_empty = ~written[0, 0].view(n_blocks, 128, n_blocks, 128).any(-1).any(1)
    assert mask.sparsity() == pytest.approx(100 * is_empty.float().mean().item())


def test_a_processor_pads():
    assert not can_use_flex(torch.zeros(1, 64), head_width=64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is at hand")
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 0.01), (True, 0.05)])
def test_a_gpu_packs_and_gives_the_gradients_of_the_processor(bfloat16, tolerance, tmp_path):
    examples = write_examples(tmp_path / "world")
    tables, signals, config = read(examples), read_declared(examples), preset("default")
    config = replace(
        config,
        model=replace(config.model, dropout=0.0, n_heads=4, n_kv_heads=2),
        training=replace(config.training, id_dropout=0.0, bfloat16=bfloat16),
    )
    recommender = random_weights(Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens)))
    artifact.save(recommender, tmp_path / "model")
    found = {}
    for device in ("cpu", "cuda"):
        command = [sys.executable, "-c", A_STEP, tmp_path / "model", examples, tmp_path / device]
        subprocess.run(command, env=os.environ | {DEVICE: device}, check=True)
        found[device] = torch.load(tmp_path / device)
    of_all = torch.stack([gradient.norm() for gradient in found["cpu"].values()]).norm()
    for name, gradient in found["cpu"].items():
        apart = (found["cuda"][name] - gradient).norm()
        assert apart <= tolerance * max(gradient.norm(), of_all / 100), name
