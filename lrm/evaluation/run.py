"""The room's door: challenger, champion and baselines on the same targets, and a verdict."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from lrm.config import preset as named_preset
from lrm.errors import DataError, LrmError
from lrm.record import recorded

EVALUATION, PAGE, LEDGER = "evaluation.json", "evaluation.html", "signal_ledger.json"


@recorded("evaluate_model", output="evaluation", keep=(EVALUATION, PAGE, LEDGER))
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
) -> dict[str, Any]:
    """Judge a model against the champion and simple baselines.

    Args:
        examples: folder that retrieve_features wrote.
        model: the challenger's folder, which train_lrm wrote.
        champion: the champion's folder; None when there is no champion yet.
        evaluation: output folder; gets `evaluation.json`, `signal_ledger.json` (unless the preset switches it off, or
            the challenger is broken) and the page `evaluation.html`.
        preset: name of the configuration whose `evaluation` part applies.
        seed: of the sample of requests, the draws of the bootstrap, and the trees.
        is_backfill: the data end at an instant in the past that somebody asked for, so that by default nothing is
            promoted.
        allow_backfill: promote all the same.

    Returns:
        `verdict`, and the challenger's metrics as `<task>_<metric>`.

    Raises:
        DataError: the champion is the challenger's own folder, a folder is not complete, or there is nothing to
            evaluate.
    """
    from lrm.evaluation.estimates import CHALLENGER, CHAMPION
    from lrm.evaluation.exam import Answers, ask, ask_baselines, mark, prepare
    from lrm.evaluation.page import page
    from lrm.evaluation.recommendations import recommend
    from lrm.evaluation.signal_ledger import signal_ledger
    from lrm.features.tables import read, read_declared, read_manifest
    from lrm.model.artifact import WEIGHTS, load
    from lrm.model.scoring import Scorer

    started = time.perf_counter()
    if champion is not None and champion.resolve() == model.resolve():
        raise DataError(f"champion and challenger are both {model}; give the champion's own folder, or none")
    config = named_preset(preset).evaluation
    manifest = read_manifest(examples)
    exam = prepare(read(examples), read_declared(examples), config, seed=seed)
    answers, about, recommendations, ledger = {}, {}, [], None
    for name, folder in {CHALLENGER: model, CHAMPION: champion}.items():
        if folder is None:
            continue
        try:
            recommender = load(folder)
            scorer = Scorer(recommender, exam.tables)
        except LrmError as error:
            if name == CHALLENGER:
                raise
            answers[name] = Answers(None, None, f"The champion cannot be scored any more: {error}.", 0.0)
            continue
        answers[name] = ask(exam, name, retriever=scorer, ranker=scorer)
        about[name] = {
            "n_parameters": sum(weights.numel() for weights in recommender.parameters()),
            "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
            "preset": recommender.config.name,
        }
        if name == CHALLENGER and not answers[name].fault:
            recommendations = recommend(exam, scorer, k=config.k, rng=np.random.default_rng(seed))
            if config.ledger_tokens:
                ledger = signal_ledger(exam, recommender, scorer, config, seed=seed)
    answers |= ask_baselines(exam, config, seed=seed)
    protocol = manifest["data"]["protocol"]
    result = mark(
        exam,
        answers,
        config,
        seed=seed,
        masked=protocol == "leave-one-out",
        is_identical=len({known["weights_sha256"] for known in about.values()}) < len(about),
        is_backfill=is_backfill,
        allow_backfill=allow_backfill,
    )
    result |= {
        "recommendations": recommendations,
        "about": about,
        "data": {
            "name": manifest["data"]["name"],
            "sha256": manifest["data"].get("sha256"),
            "snapshot_id": manifest["snapshot_id"],
            "protocol": protocol,
            "test_from": manifest.get("test_from"),
            "as_of": manifest.get("as_of"),
        },
        "settings": {"preset": preset, "seed": seed, "is_backfill": is_backfill, "allow_backfill": allow_backfill}
        | {name: getattr(config, name) for name in ("k", "n_bootstrap", "confidence", "min_users", "max_guard_drop")},
        "machine": {"cores": len(os.sched_getaffinity(0)), "cpu": _cpu(), "system": platform.platform(terse=True)},
    }
    result["seconds"] |= {"signal_ledger": ledger["seconds"]} if ledger is not None else {}
    result["seconds"]["total"] = round(time.perf_counter() - started, 2)
    _write(evaluation / EVALUATION, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if ledger is not None:
        _write(evaluation / LEDGER, json.dumps(ledger, indent=1, allow_nan=False) + "\n")
    _write(evaluation / PAGE, page(result, ledger))
    own = result["models"][CHALLENGER]
    return {"verdict": result["verdict"]} | {
        f"{task}_{metric}": cell["value"]
        for task, metrics in own.items()
        for metric, cell in metrics.items()
        if cell["value"] is not None
    }


def _cpu() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
