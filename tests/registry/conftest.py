"""A real registry per test: one store is migrated per session, and copied."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lrm.schema import write_signals
from tests.worlds import SIGNALS

NAME = "tiny-world"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lrm.registry import backend

    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    backend.connect(f"sqlite:///{path}", NAME)
    return path


@pytest.fixture
def registry(migrated: Path, tmp_path: Path) -> str:
    return copy_store(migrated, tmp_path / "state")


def copy_store(migrated: Path, state: Path) -> str:
    state.mkdir()
    shutil.copyfile(migrated, state / "mlflow.db")
    return f"sqlite:///{state / 'mlflow.db'}"


def write_trained(root: Path, weights: str, *, verdict: str = "promote") -> tuple[Path, Path]:
    """Write a model folder, and one with its evaluation and statistics; `weights` tells two models apart."""
    model, evaluation = root / f"model-{weights}", root / f"evaluation-{weights}"
    model.mkdir(exist_ok=True)
    evaluation.mkdir(exist_ok=True)
    write_signals(SIGNALS, model / "signals.json")
    (model / "weights.safetensors").write_text(weights)
    (model / "config.json").write_text(json.dumps({"name": "tiny", "model": {"d_model": 16}}))
    (model / "vocabulary.json").write_text(json.dumps({"item_ids": [100, 101, 102]}))
    (model / "metrics.json").write_text(json.dumps({"seed": 7}))
    manifest = {"data": {"name": "tiny-world", "sha256": "d" * 64}, "snapshot_id": "s" * 64, "as_of": "2024-01-25"}
    (model / "manifest.json").write_text(json.dumps(manifest | {"service": "world", "service_version": "v1"}))
    cell = {"value": 0.25, "low": 0.2, "high": 0.3, "n_users": 60}
    models = {"challenger": {"retrieval": {"ndcg@10": cell, "mrr": cell | {"value": None}}}}
    judged = {
        "format": 1,
        "verdict": verdict,
        "reasons": ["ndcg@10 rose by 0.02"],
        "models": models,
        "policy": {"sha256": "p" * 64},
    }
    (evaluation / "evaluation.json").write_text(json.dumps(judged))
    (evaluation / "statistics.json").write_text("{}")
    return model, evaluation


def register_trained(root: Path, registry: str, weights: str, *, verdict: str = "promote", **more: object) -> str:
    """Register a model folder and return its version."""
    from lrm.registry.run import register_model

    model, evaluation = write_trained(root, weights, verdict=verdict)
    told = {"registry": registry, "name": NAME, "code_version": "c1", "run_id": f"run-{weights}"}
    done = register_model(model, evaluation, root / f"registered-{weights}", **told, validation=evaluation, **more)
    return str(done["version"])


def promote_version(root: Path, registry: str, version: str, *, run_id: str = "run") -> dict[str, object]:
    from lrm.registry.run import promote_model

    return promote_model(root / f"promoted-{run_id}", registry=registry, name=NAME, version=version, run_id=run_id)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    return lambda weights="a", **more: write_trained(tmp_path, weights, **more)


@pytest.fixture
def register(registry: str, tmp_path: Path) -> Callable[..., str]:
    return lambda weights="a", **more: register_trained(tmp_path, registry, weights, **more)


@pytest.fixture
def promote(registry: str, tmp_path: Path) -> Callable[..., dict[str, object]]:
    return lambda version, **more: promote_version(tmp_path, registry, version, **more)
