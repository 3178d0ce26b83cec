"""The serving room's doors: check a trained model in staging, and put a registered version in service."""

from __future__ import annotations

import json
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from lrm.record import recorded
from lrm.serving.staging.staging_check import check_in_staging as check_in_staging

N_PROBES = 25
"""Users whose requests are compared with the offline scores: a light check of what the staging check has proved."""
EXACTLY = ("--search-effort", "0")
"""Skew is a question about signals and code: it is asked without the index, whose own error was measured when it was
built, and is looked at again by every server that opens it."""


@recorded("roll_out", output="rolled_out", keep=("roll_out.json",))
def roll_out(
    examples: Path,
    rolled_out: Path,
    *,
    registry: str,
    name: str,
    data: Path,
    feature_repo: Path,
    state: Path,
    version: str = "",
) -> dict[str, Any]:
    """Put a registered version in service, if it serves what it scores offline.

    The release (bundle, packed histories, fresh online store) is built beside its place, a server is started from it,
    and the requests of several users are compared with offline scores. Only then does the release get its name in
    `state/serving/<name>/` and `current` beside it name it; after any failure all is as it was, but for the values in
    an online store on the network: servers share it, so what the data hold of each signal is there from the start.
    Where the release in service knows a later world than these examples, as in a run of the past, nothing is done.

    Args:
        examples: folder of retrieve_features; its `as_of` is the instant of the release.
        rolled_out: output folder; gets `roll_out.json` and the server's log.
        registry: the store, `sqlite:///PATH`.
        name: the registered model.
        data: the data folder.
        feature_repo: the declarations over it.
        state: the folder that holds `serving/`.
        version: the version to serve, which must be the champion when its release is proved; the champion if left
            out.

    Returns:
        `version`, `n_probes`, `start_seconds` (until the server was ready), `latency_p50_ms`, `latency_p99_ms`,
        `max_score_difference`, `max_probability_difference`, `release_mb` (on disk). Where nothing is done, `version`
        is "" and `skipped` says why.

    Raises:
        RegistryError: there is no such version, or its bundle was tampered with.
        ServingError: the model reads a signal that is no longer declared so, the server does not start, or it answers
            differently.
    """
    from lrm.registry.ledger import locked
    from lrm.registry.run import champion_held, resolve
    from lrm.serving.release import put_in_service, remove_unfinished, root_of
    from lrm.serving.releases.builder import build_release

    found = resolve(registry, name, version=version)
    if not found["version"]:
        return _skipped(rolled_out, name, "nothing was promoted yet")
    root = root_of(state, name)
    with locked(root / "roll_out"):
        if reason := _back_in_time(root, examples):
            return _skipped(rolled_out, name, reason)
        remove_unfinished(root)
        try:
            release = build_release(
                Path(found["bundle"]), examples, data, feature_repo, state=state, name=name, version=found["version"]
            )
            metrics = _probe(release, examples, rolled_out, data=data, feature_repo=feature_repo)
            with champion_held(registry, name) as champion:
                if champion != release.version:
                    return _skipped(rolled_out, name, no_longer_champion(release.version, champion))
                put_in_service(release)
        finally:
            remove_unfinished(root)
    _write(rolled_out, metrics)
    return metrics


def no_longer_champion(version: str, champion: str) -> str:
    """Why servers are not led to a version: somebody has moved the champion while its release was made."""
    return (
        f"version {version} is not the champion, version {champion or '(none)'} is: somebody moved it meanwhile, and "
        "servers follow that decision; `python pipeline.py history` says whose it was"
    )


def _back_in_time(root: Path, examples: Path) -> str:
    """Why these examples must not go into service; "" if they may."""
    from lrm.features.tables import read_manifest
    from lrm.serving.release import CURRENT, in_service_as_of

    as_of, served = datetime.fromisoformat(read_manifest(examples)["as_of"]), in_service_as_of(root)
    if served is None or served <= as_of:
        return ""
    return (
        f"the release in service knows the world up to {served.isoformat()}, later than {as_of.isoformat()}, where "
        f"these examples end; it stays (to serve the past all the same, remove {root / CURRENT} first)"
    )


def _skipped(rolled_out: Path, name: str, reason: str) -> dict[str, Any]:
    metrics = {"name": name, "version": "", "n_probes": 0, "skipped": reason}
    _write(rolled_out, metrics)
    return metrics


def _probe(release: Any, examples: Path, rolled_out: Path, *, data: Path, feature_repo: Path) -> dict[str, Any]:
    import numpy as np

    from lrm.features.tables import read
    from lrm.model.artifact import load
    from lrm.serving.release import BUNDLE
    from lrm.serving.releases.builder import declared_for
    from lrm.serving.staging.process import running
    from lrm.serving.staging.replay import ask, choose_probes
    from lrm.serving.staging.skew import TOLERANCE, measure, require_none

    recommender, known = load(release.folder / BUNDLE), read(examples)
    declared = declared_for(recommender.signals, feature_repo, data)
    probes = choose_probes(known, data, declared, as_of=release.as_of, n=N_PROBES)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as nothing_new:
        arguments = (*EXACTLY, "--events", f"{nothing_new}/events")
        with running(release.folder, *arguments, log=rolled_out / "server.log") as address:
            start_seconds = time.perf_counter() - start
            replies = [ask(address, probe, release.as_of) for probe in probes]
    outcome = measure(release, declared, probes, replies, recommender, known)
    require_none(outcome)
    seconds = [spent for reply in replies for spent in reply.seconds]
    milliseconds = 1000 * np.array(seconds)
    return {
        "name": release.name,
        "version": release.version,
        "as_of": release.as_of.isoformat(),
        "n_probes": len(seconds),
        "n_users": len(probes),
        "start_seconds": round(start_seconds, 3),
        "latency_p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "latency_p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
        "max_score_difference": outcome.score_difference,
        "max_probability_difference": outcome.probability_difference,
        "tolerance": TOLERANCE,
        "release_mb": round(sum(one.stat().st_size for one in release.folder.rglob("*") if one.is_file()) / 1e6, 3),
    }


def _write(rolled_out: Path, metrics: dict[str, Any]) -> None:
    (rolled_out / "roll_out.json").write_text(json.dumps(metrics, indent=1) + "\n")
