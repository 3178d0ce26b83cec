"""A package of somebody else's that brings parts of a model, and the way of a model that is made of them."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest


@contextmanager
def installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, modules: Mapping[str, str], parts: Mapping[str, str]
) -> Iterator[Path]:
    """Install a package on the path of this process and its children, for as long as the block lasts.

    Args:
        folder: to be made; it is what stands on the path.
        monkeypatch: of the test.
        modules: the source of each module by its name.
        parts: by the group of entry points, its lines.
    """
    facts = folder / "their_package-1.0.dist-info"
    facts.mkdir(parents=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("".join(f"[{group}]\n{lines}\n" for group, lines in parts.items()))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    yield folder
    for name in modules:
        sys.modules.pop(name, None)


class Shop(NamedTuple):
    """A small shop, whose model is in the folder `model` of `home`."""

    home: Path
    data: Path
    repo: Path
    examples: Path


def train(home: Path, preset: str) -> Shop:
    """Train a model on the shop, with the real doors."""
    from lrm.features.run import retrieve_features
    from lrm.training.run import pretrain_token_factory, train_lrm
    from tests.serving.shop import write_shop

    data, repo = write_shop(home)
    retrieve_features(data, repo, home / "examples")
    pretrain_token_factory(home / "examples", home / "factory", preset=preset)
    train_lrm(home / "examples", home / "factory", home / "model")
    return Shop(home, data, repo, home / "examples")


@contextmanager
def served(shop: Shop) -> Iterator[str]:
    """Register, promote, roll out and serve the model of a shop; gives the address of the real server."""
    from lrm.registry.run import promote_model
    from lrm.serving.run import roll_out
    from lrm.serving.staging.process import running
    from tests.serving.conftest import NAME, register

    state = shop.home / "state"
    registry = f"sqlite:///{state}/mlflow.db"
    version = register(shop.home, registry, "toy")
    promote_model(shop.home / "promoted", registry=registry, name=NAME, version=version, run_id="run-toy")
    told = {"registry": registry, "name": NAME, "data": shop.data, "feature_repo": shop.repo, "state": state}
    assert roll_out(shop.examples, shop.home / "rolled_out", **told)["max_score_difference"] < 1e-4
    with running((state / "serving" / NAME / "current").resolve(), log=shop.home / "log") as address:
        yield address
