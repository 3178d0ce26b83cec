"""Challenger and champion in one step: both loaded from their folders, both asked the same questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrm.config import EvaluationConfig
from lrm.errors import LrmError
from lrm.evaluation.estimates import CHALLENGER, CHAMPION
from lrm.evaluation.gate.gate_inputs import Facts
from lrm.evaluation.gate.plausibility import carrier
from lrm.evaluation.held_out import HeldOut, Predictions, predict
from lrm.evaluation.policy import Policy
from lrm.evaluation.sample_recommendations import recommend
from lrm.evaluation.signals import leakage_checks
from lrm.evaluation.signals.feature_report import feature_report, recovered
from lrm.evaluation.signals.target_leakage import single_signals, suspicions
from lrm.features.tables import read_manifest
from lrm.model.artifact import WEIGHTS, load
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.storage import sha256_of


class ModelComparison(NamedTuple):
    """What the two models answered, and what was seen on the way."""

    predictions: dict[str, Predictions]
    about: dict[str, dict[str, Any]]
    facts: Facts
    recommendations: list[dict[str, Any]]
    features: dict[str, Any] | None


def compare_models(
    held_out: HeldOut,
    manifest: dict[str, Any],
    model: Path,
    champion: Path | None,
    config: EvaluationConfig,
    policy: Policy,
    *,
    seed: int,
) -> ModelComparison:
    """Let the challenger answer, and the champion if there is one; check that the answers can be believed.

    Args:
        held_out: the held-out requests.
        manifest: of the examples that they come from.
        model: the challenger's folder.
        champion: the champion's bundle.
        config: sizes.
        policy: the bars of leaks, and what the feature report reads.
        seed: of samples and draws.

    Raises:
        DataError: the challenger's folder is not complete. What is wrong with the champion is a fault in its answers.
    """
    recommender = load(model)
    scorer = Scorer(recommender, held_out.tables)
    predictions = {CHALLENGER: predict(held_out, CHALLENGER, retriever=scorer, ranker=scorer)}
    about, manifests = {CHALLENGER: _about(model, recommender)}, {CHALLENGER: read_manifest(model)}
    recommendations, features, odd, alone = [], None, list[str](), dict[str, float]()
    if not predictions[CHALLENGER].fault:
        recommendations = recommend(held_out, scorer, k=held_out.k, rng=np.random.default_rng(seed))
        alone = single_signals(recommender, scorer.corpus, seed=seed)
        odd = suspicions(recommender.signals, alone, policy.leakage)
        if config.importance_tokens:
            features = feature_report(held_out, recommender, scorer, config, policy, alone=alone, seed=seed)
            odd = features["warnings"]
    leaks = [
        *leakage_checks.late_signals(manifest),
        *leakage_checks.late_content(held_out.tables, manifest),
        *leakage_checks.rows_across_the_cut(held_out.tables, manifest),
        *leakage_checks.visible_targets(held_out.tables, scorer.corpus),
    ]
    if champion is not None:
        try:
            manifests[CHAMPION] = read_manifest(champion)
            about[CHAMPION], predictions[CHAMPION] = _champion(held_out, champion)
        except LrmError as error:
            fault = f"The champion cannot be scored: {error}."
            predictions[CHAMPION] = Predictions(None, None, fault, 0.0)
    weights = {known["weights_sha256"] for known in about.values()}
    rests_on, is_carried = carrier(features, alone, policy.leakage)
    facts = Facts(
        data_faults=tuple(leakage_checks.data_faults(manifest, manifests, challenger=CHALLENGER)),
        leaks=tuple(leaks),
        suspicions=tuple(odd),
        carrier=rests_on,
        is_carried=is_carried,
        is_identical=len(weights) < len(about),
        recovered=recovered(features) if features is not None else {},
    )
    return ModelComparison(predictions, about, facts, recommendations, features)


def _champion(held_out: HeldOut, folder: Path) -> tuple[dict[str, Any], Predictions]:
    """What the champion is, and its answers.

    Raises:
        LrmError: it cannot be loaded.
    """
    recommender = load(folder)
    unreadable = leakage_checks.unreadable(recommender.signals, (*held_out.signals, *held_out.retired))
    if unreadable:
        fault = f"The champion cannot be scored: it reads {'; '.join(unreadable)}."
        return _about(folder, recommender), Predictions(None, None, fault, 0.0)
    scorer = Scorer(recommender, held_out.tables)
    return _about(folder, recommender), predict(held_out, CHAMPION, retriever=scorer, ranker=scorer)


def _about(folder: Path, recommender: Recommender) -> dict[str, Any]:
    return {
        "n_parameters": sum(weights.numel() for weights in recommender.parameters()),
        "weights_sha256": sha256_of(folder / WEIGHTS),
        "preset": recommender.config.name,
    }
