"""What a version is registered with: the parent it was compared with, its tags, metrics and parameters."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrm.content_digest import model_sha256
from lrm.errors import RegistryError
from lrm.registry import bundle as bundles
from lrm.registry.judgement import CONTENT, EVALUATED, PARENT, VERDICT, weights_of
from lrm.registry.signature import input_example, item_type_of, model_signature
from lrm.schema import read_signals

if TYPE_CHECKING:
    from lrm.registry.backend import Registry, Version

JUDGED = ("judged_from", "judged_until")
"""The instants of the first and the last test request of a model's evaluation."""
TAGGED = ("data", "data_sha256", "snapshot_id", "feature_service", "feature_service_version", "code_version", "run_id")


def check_scored(model: Path, judged: dict[str, Any]) -> None:
    """Refuse a model that is not the one that was evaluated.

    Args:
        model: the model folder.
        judged: `evaluation.json`; where it does not say what was scored, nothing is checked.

    Raises:
        RegistryError: the content of the folder is not that which was scored.
    """
    scored, seen = judged.get("challenger_content"), model_sha256(model)
    if scored is not None and scored != seen:
        raise RegistryError(
            f"the evaluation is of a model with the content {scored}, but {model} has {seen}: it was changed after it "
            "was scored, or is another model; run the step evaluate_model again on the model to register"
        )


def parent_of(store: Registry, champion: str | None) -> str:
    """The version that the evaluation compared with: the one that holds the bundle, today's champion for None.

    Raises:
        RegistryError: the bundle compared with is no version of this model.
    """
    from lrm.registry import backend

    if champion is None:
        return backend.alias(store, backend.CHAMPION)
    if not champion:
        return ""
    content = bundles.verify(Path(champion))[CONTENT]
    for one in backend.versions(store):
        if one.tags.get(CONTENT) == content:
            return one.version
    raise RegistryError(f"{champion} was compared with, but is no version of {store.name}; name a registered bundle")


def log(store: Registry, bundle: Path, manifest: dict[str, Any], judged: dict[str, Any], *, artifacts: Path) -> Version:
    """Log a built bundle as the next version, with the tags that lead back to where it came from."""
    from lrm.registry import backend

    lineage = manifest["lineage"]
    signals = read_signals(bundle / "signals.json")
    item_ids = json.loads((bundle / "vocabulary.json").read_text())["item_ids"]
    tags = {key: str(lineage[key]) for key in TAGGED} | {
        CONTENT: manifest[CONTENT],
        PARENT: lineage["parent_version"],
        VERDICT: str(judged["verdict"]),
        EVALUATED: manifest["files"][bundles.EVALUATION],
        "weights_sha256": weights_of(manifest),
        "policy_sha256": str(judged.get("policy", {}).get("sha256", "")),
        **{key: str(judged.get("data", {}).get(key) or "") for key in JUDGED},
    }
    return backend.register(
        store,
        bundle,
        signature=model_signature(signals, item_type=item_type_of(item_ids)),
        example=input_example(signals, item_ids=item_ids),
        requirements=[f"{package}=={version}" for package, version in bundles.packages().items()],
        metrics=challenger_metrics(judged),
        params=dict(_flat(lineage["config"])) | {"seed": lineage["seed"]},
        tags=tags,
        artifacts=artifacts,
    )


def challenger_metrics(evaluation: dict[str, Any]) -> dict[str, float]:
    """The challenger's finite metrics as {"task.metric": value}."""
    tasks = evaluation.get("models", {}).get("challenger", {})
    values = {f"{task}.{metric}": cell["value"] for task, cells in tasks.items() for metric, cell in cells.items()}
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in config.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows
