"""A recommender on disk: one folder that is the registry's version and the server's bundle alike.

It is data alone, JSON and safetensors: nothing in it is run when it is loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lrm import config as configuration
from lrm.content_digest import WEIGHTS as WEIGHTS
from lrm.errors import DataError
from lrm.features.tables import SIGNALS
from lrm.model.recommender import Recommender
from lrm.schema import read_signals, write_signals
from lrm.storage import whole_file
from lrm.tokens import vocabulary as vocabularies

CONFIG, VOCABULARY = "config.json", "vocabulary.json"


def save(recommender: Recommender, folder: Path) -> None:
    """Write configuration, signals, vocabulary and weights; the weights last, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(configuration.to_json(recommender.config) + "\n")
    write_signals(recommender.signals, folder / SIGNALS)
    vocabularies.save(recommender.vocabulary, folder / VOCABULARY)
    with whole_file(folder / WEIGHTS) as partial:
        save_file({name: weight.cpu().contiguous() for name, weight in recommender.state_dict().items()}, partial)


def load(folder: Path) -> Recommender:
    """Read what `save` wrote, ready to score.

    Raises:
        DataError: a file is missing or damaged, or the weights do not fit this version of the code.
        SchemaError: the configuration has a knob that this version of the code does not know.
    """
    for name in (CONFIG, SIGNALS, VOCABULARY, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; {folder} is not a finished model folder, train it again")
    try:
        config = configuration.from_json((folder / CONFIG).read_text())
        signals, vocabulary = read_signals(folder / SIGNALS), vocabularies.load(folder / VOCABULARY)
        weights = load_file(folder / WEIGHTS, device="cpu")
    except (OSError, EOFError, ValueError, KeyError, TypeError, SafetensorError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{folder} is damaged ({said}); restore its files, or train again") from error
    recommender = Recommender(config, signals, vocabulary)
    own = recommender.state_dict()
    odd = sorted(name for name in own.keys() | weights.keys() if _shape(own, name) != _shape(weights, name))
    if odd:
        raise DataError(
            f"{folder / WEIGHTS} was written by another version of the code: {odd[0]!r} is {_shape(weights, odd[0])} "
            f"there and {_shape(own, odd[0])} here ({len(odd)} such weights); check out the version that wrote it, or "
            "train again"
        )
    recommender.load_state_dict(weights)
    return recommender.eval()


def _shape(weights: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None
