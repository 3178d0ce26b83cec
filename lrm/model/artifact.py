"""A recommender on disk: one folder that is the registry's version and the server's bundle alike."""

from __future__ import annotations

from pathlib import Path

import torch

from lrm import config as configuration
from lrm.errors import DataError
from lrm.features.tables import SIGNALS
from lrm.model.recommender import Recommender
from lrm.schema import read_signals, write_signals
from lrm.tokens import vocabulary as vocabularies

CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.json", "weights.pt"


def save(recommender: Recommender, folder: Path) -> None:
    """Write configuration, signals, vocabulary and weights; the weights last, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(configuration.to_json(recommender.config) + "\n")
    write_signals(recommender.signals, folder / SIGNALS)
    vocabularies.save(recommender.vocabulary, folder / VOCABULARY)
    partial = folder / f".{WEIGHTS}.partial"
    torch.save(recommender.state_dict(), partial)
    partial.replace(folder / WEIGHTS)


def load(folder: Path) -> Recommender:
    """Read what `save` wrote, ready to score.

    Raises:
        DataError: a file is missing.
    """
    for name in (CONFIG, SIGNALS, VOCABULARY, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; {folder} is not a finished model folder, train it again")
    recommender = Recommender(
        configuration.from_json((folder / CONFIG).read_text()),
        read_signals(folder / SIGNALS),
        vocabularies.load(folder / VOCABULARY),
    )
    recommender.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    return recommender.eval()
