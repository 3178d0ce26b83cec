"""What the steps of a run left behind, read with patience: after a failure anything may be missing or half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from lrm.record import read_records

STEPS = (
    "find_champion",
    "retrieve_features",
    "validate_data",
    "pretrain_token_factory",
    "train_lrm",
    "check_in_staging",
    "evaluate_model",
    "register_model",
    "promote_model",
    "roll_out",
    "report_run",
)
"""The workflow's steps in order; the last one is the report itself."""

VALIDATION_PAGE = "steps/validate_data/validation.html"

Json = dict[str, Any]


class RunFiles(NamedTuple):
    """The parsed files of one run; an empty dictionary or list stands for a file that is not there."""

    run: Json
    records: dict[str, Json]
    manifest: Json
    signals: list[Json]
    validation: Json
    statistics: Json
    pretraining_curves: Json
    training_curves: Json
    training_metrics: Json
    config: Json
    staging: Json
    evaluation: Json
    feature_report: Json
    lineage: Json
    moves: list[Json]
    """Moves of the champion: the latest that the run found, oldest first, and then its own."""
    has_validation_page: bool
    unreadable: list[str]
    """Files that are there but are not JSON, each with what is wrong with it."""

    def returned(self, step: str) -> Json:
        """The metrics that a step returned; empty where it did not end well."""
        metrics: Json = self.records.get(step, {}).get("metrics") or {}
        return metrics


def of_evaluation(evaluation: Json, feature_report: Json | None = None) -> RunFiles:
    """The files of an evaluation alone: the parsed `evaluation.json`, and `feature_report.json` where there is one."""
    return RunFiles(
        run={},
        records={},
        manifest={},
        signals=[],
        validation={},
        statistics={},
        pretraining_curves={},
        training_curves={},
        training_metrics={},
        config={},
        staging={},
        evaluation=evaluation,
        feature_report=feature_report or {},
        lineage={},
        moves=[],
        has_validation_page=False,
        unreadable=[],
    )


def read(run_dir: Path) -> RunFiles:
    """Read everything that the report shows."""
    unreadable: list[str] = []

    def parsed(path: str) -> Json:
        return _parsed(run_dir / path, path, unreadable)

    signals: Any = parsed("steps/retrieve_features/signals.json")
    moves: Any = parsed("steps/find_champion/moves.json")
    own = parsed("steps/promote_model/promotion.json").get("move")
    return RunFiles(
        run=parsed("run.json"),
        records=read_records(run_dir),
        manifest=parsed("steps/retrieve_features/manifest.json"),
        signals=signals or [],
        validation=parsed("steps/validate_data/validation.json"),
        statistics=parsed("steps/validate_data/statistics.json"),
        pretraining_curves=parsed("steps/pretrain_token_factory/curves.json"),
        training_curves=parsed("steps/train_lrm/curves.json"),
        training_metrics=parsed("steps/train_lrm/metrics.json"),
        config=parsed("steps/train_lrm/config.json"),
        staging=parsed("steps/check_in_staging/staging.json"),
        evaluation=parsed("steps/evaluate_model/evaluation.json"),
        feature_report=parsed("steps/evaluate_model/feature_report.json"),
        lineage=parsed("steps/register_model/bundle.json").get("lineage", {}),
        moves=[*(moves or []), *([own] if own else [])],
        has_validation_page=(run_dir / VALIDATION_PAGE).is_file(),
        unreadable=unreadable,
    )


def _parsed(path: Path, name: str, unreadable: list[str]) -> Json:
    if not path.is_file():
        return {}
    try:
        content: Json = json.loads(path.read_text())
    except ValueError as error:
        unreadable.append(f"{name} is not JSON ({error}); the step that wrote it was probably interrupted")
        return {}
    return content
