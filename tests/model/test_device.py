import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lrm.errors import SchemaError
from lrm.features.tables import read, read_declared
from lrm.model import artifact
from lrm.model.device import DEVICE, repeatable, use_device
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.prompt import build_batch
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.objectives import ranking
from lrm.training.training_windows import overlapping_windows
from tests.worlds import random_weights, write_examples

ON_A_GPU = """
import sys, numpy as np
from pathlib import Path
from lrm.features.tables import read
from lrm.model import artifact
from lrm.model.device import use_device
from lrm.model.scoring import Scorer
assert use_device().type == "cuda"
scorer = Scorer(artifact.load(Path(sys.argv[1])), read(Path(sys.argv[2])))
np.savez(sys.argv[3], items=scorer.item_scores(np.arange(40)), candidates=scorer.candidate_logits(np.arange(40)))
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("name", ["default", "text", "hybrid", "noise", "constant"])
def test_every_tensor_of_a_step_is_made_on_the_default_device(examples, name):
    """The device `meta` holds no numbers, and refuses to meet a tensor of another device as a GPU would."""
    tables, signals, config = read(examples), read_declared(examples), preset(name)
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    corpus = encode_corpus(tables, signals, vocabulary)
    recommender = Recommender(config, signals, vocabulary).to("meta")
    with torch.device("meta"):
        batch = build_batch(corpus, overlapping_windows(corpus, max_history=16), recommender.prompt_shape())
        states = recommender(batch)
        losses = Losses(recommender, TrainingData(corpus, recommender))
        context = losses.context(batch, np.random.default_rng(0))
        loss = ranking.loss(states, context) + states.head.share_RT.sum() + states.request_RD.sum()
        loss.backward()
    assert {each.device.type for each in (*states.head, states.event_ED, loss)} == {"meta"}


@pytest.mark.parametrize(("asked", "seen"), [("gpu", "must be auto, cpu or cuda"), ("cuda", "sees none")])
def test_a_device_that_is_not_to_be_had_is_refused(asked, seen, monkeypatch):
    if asked == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv(DEVICE, asked)
    with pytest.raises(SchemaError, match=seen):
        use_device()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is at hand")
def test_a_gpu_gives_the_scores_of_the_processor(examples, tmp_path):
    tables, signals, config = read(examples), read_declared(examples), preset("default")
    recommender = random_weights(Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens)))
    artifact.save(recommender, tmp_path / "model")
    subprocess.run(
        [sys.executable, "-c", ON_A_GPU, tmp_path / "model", examples, tmp_path / "scores.npz"],
        env=os.environ | {DEVICE: "cuda", "NVIDIA_TF32_OVERRIDE": "0"},
        check=True,
    )
    scorer = Scorer(recommender, tables)
    with np.load(tmp_path / "scores.npz") as there:
        assert there["items"] == pytest.approx(scorer.item_scores(np.arange(40)), abs=1e-3)
        assert there["candidates"] == pytest.approx(scorer.candidate_logits(np.arange(40)), abs=1e-3)


def test_gradients_of_rows_read_many_times_are_the_same_to_the_last_bit_on_several_threads():
    generator, threads = torch.Generator().manual_seed(0), torch.get_num_threads()
    row = torch.randint(0, 50, (40_000,), generator=generator)
    weight = torch.randn(40_000, 16, generator=generator)

    def gradient() -> torch.Tensor:
        x = torch.ones(50, 16, requires_grad=True)
        with repeatable():
            (x[row] * weight).sum().backward()
        return x.grad

    torch.set_num_threads(4)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(10))
    finally:
        torch.set_num_threads(threads)
    assert not torch.are_deterministic_algorithms_enabled()
