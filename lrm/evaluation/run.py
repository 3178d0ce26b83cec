"""The room's door: challenger, champion and baselines on the same targets, and a verdict."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from lrm import formats
from lrm.errors import DataError
from lrm.presets import preset as named_preset
from lrm.record import recorded
from lrm.storage import write_json, write_text

EVALUATION, PAGE, FEATURES = "evaluation.json", "evaluation.html", "feature_report.json"
CHAMPION_FILE = "champion.json"
"""What find_champion wrote of the version in service."""


@recorded("evaluate_model", output="evaluation", keep=(EVALUATION, PAGE, FEATURES))
def evaluate_model(
    examples: Path,
    model: Path,
    champion: Path | None,
    evaluation: Path,
    *,
    preset: str,
    seed: int = 0,
    is_backfill: bool = False,
    allow_backfill: bool = False,
    feature_repo: Path | None = None,
    staging: Path | None = None,
    found: Path | None = None,
) -> dict[str, Any]:
    """Judge a model against the champion and simple baselines.

    Args:
        examples: folder that retrieve_features wrote.
        model: the challenger's folder, which train_lrm wrote.
        champion: the champion's bundle; None when there is no champion yet.
        evaluation: output folder; gets `evaluation.json`, `feature_report.json` (unless the preset switches it off, or
            the challenger is broken) and the page `evaluation.html`.
        preset: name of the configuration whose `evaluation` part applies.
        seed: of the sample of requests, the draws of the bootstrap, and the trees.
        is_backfill: the data end at an instant in the past that somebody asked for.
        allow_backfill: whoever started the run said in words that it may promote all the same.
        feature_repo: the declarations of the data, whose `policy.toml`, if any, overrules the project's.
        staging: folder that check_in_staging wrote; None where the model was not checked in staging.
        found: folder that find_champion wrote, which knows what was rolled back, and the looks that were taken at these
            test data before; None where nobody looked.

    Returns:
        `verdict`, `policy_sha256`, and the challenger's metrics as `<task>_<metric>`.

    Raises:
        PolicyError: a policy file cannot be read, or asks for what does not exist.
        DataError: the champion is the challenger's own folder, a folder is not complete, or there is nothing to
            evaluate.
    """
    from lrm.content_digest import model_sha256
    from lrm.evaluation import policy as policies
    from lrm.evaluation import staging_results
    from lrm.evaluation.baselines.history_rerankers import predict_rerankers
    from lrm.evaluation.compare_models import compare_models
    from lrm.evaluation.estimates import CHALLENGER
    from lrm.evaluation.evaluate import evaluate
    from lrm.evaluation.gate import alpha_spending
    from lrm.evaluation.held_out import predict_baselines, prepare
    from lrm.features.tables import read, read_declared, read_manifest
    from lrm.model.device import use_device
    from lrm.reporting.evaluation_page import render

    started = time.perf_counter()
    use_device()
    if champion is not None and champion.resolve() == model.resolve():
        raise DataError(f"champion and challenger are both {model}; give the champion's own folder, or none")
    config, manifest = named_preset(preset).evaluation, read_manifest(examples)
    paths = policies.files(feature_repo)
    policy, staged, known = policies.load(paths), staging_results.read(staging), alpha_spending.read(found)
    held_out = prepare(read(examples), read_declared(examples), config, seed=seed)
    compared = compare_models(held_out, manifest, model, champion, config, policy, seed=seed)
    protocol, features = manifest["data"]["protocol"], compared.features
    predictions = compared.predictions | predict_baselines(held_out, config, seed=seed)
    shortlists, absent = predict_rerankers(held_out, predictions)
    earlier = alpha_spending.earlier(
        known,
        held_out.judged_at(),
        data=manifest["data"]["name"],
        weights_sha256=compared.about[CHALLENGER]["weights_sha256"],
        has_champion=champion is not None,
    )
    result = evaluate(
        held_out,
        predictions | shortlists,
        policy,
        seed=seed,
        masked=protocol == "leave-one-out",
        facts=compared.facts._replace(
            is_backfill=is_backfill,
            allow_backfill=allow_backfill,
            staging=staged,
            rolled_back=_rolled_back(found, compared.about[CHALLENGER]["weights_sha256"]),
            looks=earlier,
        ),
    )
    result |= {
        formats.FORMAT: formats.EVALUATION,
        "absent": absent,
        "policy": policies.as_json(policy, paths),
        "challenger_content": model_sha256(model),
        "staging": staging_results.as_json(staged),
        "recommendations": compared.recommendations,
        "about": compared.about,
        "data": _data(manifest) | alpha_spending.window(held_out.judged_at()),
        "settings": {"preset": preset, "seed": seed, "is_backfill": is_backfill, "k": config.k},
        "machine": {"cores": len(os.sched_getaffinity(0)), "cpu": _cpu(), "system": platform.platform(terse=True)},
    }
    result["seconds"] |= {"feature_report": features["seconds"]} if features is not None else {}
    result["seconds"]["total"] = round(time.perf_counter() - started, 2)
    _write(evaluation, result, features, page=render(result, features))
    return {"verdict": result["verdict"], "policy_sha256": result["policy"]["sha256"]} | _flat(
        result["models"][CHALLENGER]
    )


def _data(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the examples' manifest says of the data."""
    return {
        "name": manifest["data"]["name"],
        "sha256": manifest["data"].get("sha256"),
        "snapshot_id": manifest["snapshot_id"],
        "protocol": manifest["data"]["protocol"],
        "test_from": manifest.get("test_from"),
        "as_of": manifest.get("as_of"),
    }


def _write(folder: Path, result: dict[str, Any], features: dict[str, Any] | None, *, page: str) -> None:
    write_json(folder / EVALUATION, result, allow_nan=False)
    if features is not None:
        write_json(folder / FEATURES, features, allow_nan=False)
    write_text(folder / PAGE, page)


def _flat(models: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Metrics as `<task>_<metric>`; those that could not be computed are left out."""
    return {
        f"{task}_{metric}": cell["value"]
        for task, metrics in models.items()
        for metric, cell in metrics.items()
        if cell["value"] is not None
    }


def _rolled_back(found: Path | None, weights_sha256: str) -> str | None:
    """Who took these weights out of service, when and why; "" for nobody, None where nobody has looked."""
    if found is None:
        return None
    return str(json.loads((found / CHAMPION_FILE).read_text())["rolled_back"].get(weights_sha256, ""))


def _cpu() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
