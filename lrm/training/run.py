"""The training room's doors: pretrain the token factory, then train it jointly with the decoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lrm.config import to_json
from lrm.features.tables import MANIFEST, read, read_declared, read_manifest
from lrm.presets import preset as find_configuration
from lrm.record import recorded
from lrm.schema import in_use
from lrm.storage import sha256_of

KEPT = ("curves.json", "metrics.json", "config.json")


@recorded("pretrain_token_factory", output="factory", keep=KEPT)
def pretrain_token_factory(examples: Path, factory: Path, *, preset: str, seed: int = 0) -> dict[str, Any]:
    """Fit the vocabulary, build a recommender, and pretrain its token factory without the decoder.

    Args:
        examples: folder of retrieve_features.
        factory: folder to write; a recommender whose decoder is still random.
        preset: name of a configuration in `lrm.presets`.
        seed: of every random choice.

    Returns:
        The last value of each pretraining loss.

    Raises:
        ConfigError: a part of the preset is not installed, or text cannot be as short as soft tokens.
    """
    import torch

    from lrm.model import artifact
    from lrm.model.device import use_device
    from lrm.model.recommender import Recommender
    from lrm.tokens.corpus import fit_vocabulary
    from lrm.training.data import training_corpus
    from lrm.training.objectives import objectives
    from lrm.training.pretrain import pretrain

    use_device(tf32=True)
    config = find_configuration(preset)
    objectives(
        config.training.objectives, config.training.objective_options
    )  # refuses an unknown name before anything is trained
    tables, signals = read(examples), in_use(read_declared(examples))
    torch.manual_seed(seed)
    vocabulary = fit_vocabulary(tables, signals, config.tokens)
    recommender = Recommender(config, signals, vocabulary)
    recommender.check_budget()
    corpus = training_corpus(tables, recommender, factory)
    del tables
    recommender.fit_head(corpus, seed=seed)
    curves = pretrain(recommender, corpus, seed=seed)
    metrics = {name: series[-1][1] for name, series in curves.items() if series} | recommender.head_facts()
    _write_results(factory, examples, curves, metrics)
    artifact.save(recommender, factory)
    return metrics


@recorded("train_lrm", output="model", keep=KEPT)
def train_lrm(examples: Path, factory: Path, model: Path, *, seed: int = 0) -> dict[str, Any]:
    """Train factory and decoder together, from the pretrained factory.

    Args:
        examples: folder of retrieve_features.
        factory: folder of pretrain_token_factory; its configuration is used.
        model: folder to write.
        seed: of every random choice.

    Returns:
        Best epoch, steps, parameters, and the best epoch's losses.

    Raises:
        SchemaError: another version of the code wrote the factory.
        ConfigError: as of pretrain_token_factory.
        TrainingDiverged: a loss or gradient is not finite.
    """
    from lrm.model import artifact
    from lrm.model.device import use_device
    from lrm.training import checkpoint
    from lrm.training.data import training_corpus
    from lrm.training.loop import fit

    use_device(tf32=True)
    recommender = artifact.load(factory)
    corpus = training_corpus(read(examples), recommender, model)
    weights = sha256_of(factory / artifact.WEIGHTS)
    checkpoints = checkpoint.folder_for(
        read_manifest(examples)["snapshot_id"], to_json(recommender.config), str(seed), weights
    )
    progress = fit(recommender, corpus, seed=seed, checkpoints=checkpoints)
    metrics: dict[str, Any] = {
        "best_epoch": progress.best_epoch + 1,
        "epochs": progress.epoch,
        "steps": progress.step,
        "parameters": sum(p.numel() for p in recommender.parameters()),
        "factory_parameters": sum(p.numel() for p in recommender.factory.parameters()),
        "seed": seed,
    } | recommender.head_facts()
    for name, series in progress.curves.items():
        if name.startswith("validation/"):
            metrics[name.replace("/", "_")] = series[progress.best_epoch][1]
    _write_results(model, examples, progress.curves, metrics)
    shutil.copyfile(examples / "items.parquet", model / "items.parquet")
    artifact.save(recommender, model)
    checkpoint.discard(checkpoints)
    return metrics


def _write_results(folder: Path, examples: Path, curves: dict[str, list[list[float]]], metrics: dict[str, Any]) -> None:
    """Write what the report and the registry read, beside the weights."""
    (folder / "curves.json").write_text(json.dumps(curves) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    shutil.copyfile(examples / MANIFEST, folder / MANIFEST)
