"""The staging check: a trained model in the real server, before anybody decides about it.

Everything is built in a scratch folder, so that what is in service is not touched. Only the entities that the staging
check asks about are written to the scratch's online store: seconds instead of a minute.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lrm.errors import LrmError
from lrm.record import recorded

if TYPE_CHECKING:
    from lrm.features.declarations import Declarations
    from lrm.features.scratch_project import Scratch
    from lrm.features.tables import Tables
    from lrm.serving.release import Release
    from lrm.serving.staging.replay import Probe, Reply
    from lrm.serving.staging.skew import Outcome

STAGING = "staging.json"
CHALLENGER, CHAMPION, STAGED = "challenger", "champion", "staged"
LOGS = {CHALLENGER: "challenger.log", CHAMPION: "champion.log"}
N_USERS = 100
N_LISTED = 20
"""Differences that `staging.json` lists; all are counted."""


class Play(NamedTuple):
    """What every actor is given."""

    known: Tables
    examples: Path
    data: Path
    feature_repo: Path
    staging: Path
    n_users: int


class Actor(NamedTuple):
    """A model on stage, and the requests it is asked."""

    release: Release
    declared: Declarations
    probes: list[Probe]


class Played(NamedTuple):
    """What an actor's server did."""

    start_seconds: float
    """Until it was ready."""
    replies: list[Reply]


@recorded("check_in_staging", output="staging", keep=(STAGING, *LOGS.values()))
def check_in_staging(
    examples: Path,
    model: Path,
    champion: Path | None,
    staging: Path,
    *,
    data: Path,
    feature_repo: Path,
    n_users: int = N_USERS,
) -> dict[str, Any]:
    """Answer the requests of many users with a trained model, online and offline, and measure the two.

    It measures and does not judge: a difference is counted and named, never raised. The champion, if there is one, is
    started beside it and asked the same in turn, so that both latencies are taken under the same load. A server that
    does not start or does not answer is a finding too: `fault` says so, and nothing is measured.

    Args:
        examples: folder of retrieve_features; its `as_of` is the instant of all requests.
        model: folder that train_lrm wrote.
        champion: the bundle in service; None where there is none.
        staging: output folder; gets `staging.json` (docs/artifacts.md, section 9) and the servers' logs.
        data: the data folder.
        feature_repo: the declarations over it.
        n_users: users at most, spread from the most recently active to the least.

    Returns:
        The numbers of `staging.json`.
    """
    from lrm.features.tables import read

    play, found, champion_fault = Play(read(examples), examples, data, feature_repo, staging, n_users), None, ""
    with tempfile.TemporaryDirectory(dir=staging, prefix=".stage-") as folder:
        own = {CHALLENGER: sealed(model, Path(folder, "bundle"))}
        if champion is not None:
            found, champion_fault = _measured(play, own | {CHAMPION: champion}, Path(folder, "both"))
        if found is None:  # the champion's fault, or the challenger's, which is then met again
            found, fault = _measured(play, own, Path(folder, "alone"))
    facts = (found or _nothing()) | {
        "bundle_bytes": size_of(model),
        "champion_bundle_bytes": size_of(champion) if champion else None,
        "fault": fault if found is None else "",
        "champion_fault": champion_fault if found else "",
    }
    (staging / STAGING).write_text(json.dumps(_finite(facts), indent=1, allow_nan=False) + "\n")
    return {name: value for name, value in facts.items() if isinstance(value, int | float)}


def sealed(model: Path, folder: Path) -> Path:
    """Copy a trained model into the form in which a registered one is served; return the folder."""
    from lrm import formats
    from lrm.content_digest import BUNDLE, NOT_CONTENT, content_sha256, digest

    shutil.copytree(model, folder, ignore=shutil.ignore_patterns(*NOT_CONTENT, ".*"))
    files = digest(folder)
    facts = {formats.FORMAT: formats.BUNDLE, "content_sha256": content_sha256(files), "files": files, "lineage": {}}
    (folder / BUNDLE).write_text(json.dumps(facts, indent=1) + "\n")
    return folder


def size_of(bundle: Path) -> int:
    """Bytes of a model's own files: of a bundle, without what the workflow adds to it."""
    from lrm.content_digest import NOT_CONTENT
    from lrm.registry.bundle import EVALUATION, STATISTICS

    added = {*NOT_CONTENT, EVALUATION, STATISTICS}
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file() and path.name not in added)


def _measured(play: Play, bundles: dict[str, Path], stage: Path) -> tuple[dict[str, Any] | None, str]:
    """What was measured, or None and what went wrong."""
    from lrm.features.scratch_project import scratch_project
    from lrm.model.artifact import load
    from lrm.serving.staging.skew import measure

    with scratch_project(play.feature_repo, play.data, stage) as scratch:
        try:
            actors, played = _perform(play, bundles, stage, scratch)
        except LrmError as error:
            return None, str(error)
        recommender = load(bundles[CHALLENGER])
        return _found(measure(*actors[CHALLENGER], played[CHALLENGER].replies, recommender, play.known), played), ""


def _perform(
    play: Play, bundles: dict[str, Path], stage: Path, scratch: Scratch
) -> tuple[dict[str, Actor], dict[str, Played]]:
    """Build a release of every bundle over one online store, start their servers, and ask them in turn."""
    from lrm.serving.staging.process import running
    from lrm.serving.staging.replay import ask

    actors = _cast(play, bundles, stage, scratch)
    with ExitStack() as stack:
        addresses, started = {}, {}
        replies: dict[str, list[Reply]] = {name: [] for name in actors}
        for name, actor in actors.items():
            start = time.perf_counter()
            addresses[name] = stack.enter_context(running(actor.release.folder, log=play.staging / LOGS[name]))
            started[name] = time.perf_counter() - start
            ask(addresses[name], actor.probes[0], actor.release.as_of)  # the first request fills caches
        for row in range(len(actors[CHALLENGER].probes)):
            for name in sorted(actors, reverse=bool(row % 2)):  # neither is always the first
                replies[name].append(ask(addresses[name], actors[name].probes[row], actors[name].release.as_of))
    return actors, {name: Played(started[name], replies[name]) for name in actors}


def _cast(play: Play, bundles: dict[str, Path], stage: Path, scratch: Scratch) -> dict[str, Actor]:
    from lrm.features.store import materialise_online
    from lrm.features.tables import read_manifest
    from lrm.schema import ITEM_ID, USER_ID, read_signals
    from lrm.serving.releases.builder import build_release, declared_for
    from lrm.serving.staging.replay import choose_probes

    as_of = datetime.fromisoformat(read_manifest(play.examples)["as_of"])
    place: dict[str, Any] = {"state": stage, "version": STAGED, "online": scratch.online}
    declared, probes = {}, {}
    for name, bundle in bundles.items():
        declared[name] = declared_for(read_signals(bundle / "signals.json"), play.feature_repo, play.data)
        probes[name] = choose_probes(play.known, play.data, declared[name], as_of=as_of, n=play.n_users)
    asked = [probe for own in probes.values() for probe in own]
    only = {
        USER_ID: list(dict.fromkeys(probe.user_id for probe in asked)),
        ITEM_ID: list(dict.fromkeys(candidate[ITEM_ID] for probe in asked for candidate in probe.candidates)),
    }
    materialise_online(scratch.repo, play.data, as_of, state=scratch.online, only=only, written=scratch.written)
    actors = {}
    for name, bundle in bundles.items():
        release = build_release(bundle, play.examples, play.data, scratch.repo, name=name, exact_up_to=None, **place)
        actors[name] = Actor(release, declared[name], probes[name])
    return actors


def _found(outcome: Outcome, played: dict[str, Played]) -> dict[str, Any]:
    import numpy as np

    found = _nothing() | {
        "n_users": len(played[CHALLENGER].replies),
        "n_skewed": outcome.n_skewed,
        "max_score_difference": outcome.score_difference,
        "max_probability_difference": outcome.probability_difference,
        "skew": [one._asdict() for one in outcome.skew[:N_LISTED]],
        "expired": outcome.expired,
        "n_ever_known": outcome.n_ever_known,
        "start_seconds": round(played[CHALLENGER].start_seconds, 3),
    }
    for name, prefix in {CHALLENGER: "", CHAMPION: "champion_"}.items():
        if name in played:
            seconds = [spent for reply in played[name].replies for spent in reply.seconds]
            for percentile in (50, 99):
                milliseconds = 1000 * float(np.percentile(seconds, percentile))
                found[f"{prefix}latency_p{percentile}_ms"] = round(milliseconds, 3)
            found["n_requests"] = len(seconds)
    return found


def _nothing() -> dict[str, Any]:
    """What `staging.json` says where nothing could be measured."""
    from lrm.serving.staging.skew import TOLERANCE

    measured = ("max_score_difference", "max_probability_difference", "start_seconds")
    latencies = (f"{prefix}latency_p{percentile}_ms" for prefix in ("", "champion_") for percentile in (50, 99))
    counts = {"n_users": 0, "n_requests": 0, "n_skewed": 0, "n_ever_known": 0}
    return counts | {"tolerance": TOLERANCE, "skew": [], "expired": {}} | dict.fromkeys((*measured, *latencies))


def _finite(value: Any) -> Any:
    """The same with null for every number that is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
