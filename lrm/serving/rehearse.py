"""The rehearsal: a trained model in the real server, before anybody decides about it.

Everything is built in a scratch folder, so that what is in service is not touched. Only the entities that the rehearsal
asks about are written to the scratch's online store: seconds instead of a minute.
"""

from __future__ import annotations

import json
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
    from lrm.features.tables import Tables
    from lrm.serving.release import Release
    from lrm.serving.replay import Probe, Reply
    from lrm.serving.skew import Outcome

REHEARSAL = "rehearsal.json"
CHALLENGER, CHAMPION, REHEARSED = "challenger", "champion", "rehearsed"
LOGS = {CHALLENGER: "challenger.log", CHAMPION: "champion.log"}
N_USERS = 100
N_LISTED = 20
"""Differences that `rehearsal.json` lists; all are counted."""


class Play(NamedTuple):
    """What every actor is given."""

    known: Tables
    examples: Path
    data: Path
    feature_repo: Path
    rehearsal: Path
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


@recorded("rehearse_model", output="rehearsal", keep=(REHEARSAL, *LOGS.values()))
def rehearse_model(
    examples: Path,
    model: Path,
    champion: Path | None,
    rehearsal: Path,
    *,
    data: Path,
    feature_repo: Path,
    n_users: int = N_USERS,
) -> dict[str, Any]:
    """Answer the requests of many users with a trained model, online and offline, and measure the two.

    It measures and does not judge: a difference is counted and named, never raised. The champion, if there is one, is
    started beside it and asked the same in turn, so that both latencies are taken under the same load.

    Args:
        examples: folder of retrieve_features; its `as_of` is the instant of all requests.
        model: folder that train_lrm wrote.
        champion: the bundle in service; None where there is none.
        rehearsal: output folder; gets `rehearsal.json` (docs/artifacts.md, section 9) and the servers' logs.
        data: the data folder.
        feature_repo: the declarations over it.
        n_users: users at most, spread from the most recently active to the least.

    Returns:
        The numbers of `rehearsal.json`.

    Raises:
        ServingError: the model reads a signal that is no longer declared so, its server does not start, or a request
            gets no answer.
    """
    from lrm.features.tables import read
    from lrm.model.artifact import load
    from lrm.serving.release import BUNDLE
    from lrm.serving.skew import measure

    play = Play(read(examples), examples, data, feature_repo, rehearsal, n_users)
    with tempfile.TemporaryDirectory(dir=rehearsal, prefix=".stage-") as folder:
        own, fault = {CHALLENGER: _sealed(model, Path(folder, "bundle"))}, ""
        try:
            actors, played = _perform(play, own | ({CHAMPION: champion} if champion else {}), Path(folder, "both"))
        except LrmError as error:
            if champion is None:
                raise
            fault = str(error)  # the challenger's own fault raises once more
            actors, played = _perform(play, own, Path(folder, "alone"))
        challenger = actors[CHALLENGER]
        recommender = load(challenger.release.folder / BUNDLE)
        outcome = measure(*challenger, played[CHALLENGER].replies, recommender, play.known)
    found = _found(outcome, played) | {
        "bundle_bytes": size_of(model),
        "champion_bundle_bytes": size_of(champion) if champion else None,
        "champion_fault": fault,
    }
    (rehearsal / REHEARSAL).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def size_of(bundle: Path) -> int:
    """Bytes of a model's own files: of a bundle, without what the workflow adds to it."""
    from lrm.content import NOT_CONTENT
    from lrm.registry.bundle import EVALUATION, STATISTICS

    added = {*NOT_CONTENT, EVALUATION, STATISTICS}
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file() and path.name not in added)


def _sealed(model: Path, folder: Path) -> Path:
    """A copy of a trained model in the form in which a registered one is served."""
    from lrm.content import BUNDLE, NOT_CONTENT, content_sha256, digest

    shutil.copytree(model, folder, ignore=shutil.ignore_patterns(*NOT_CONTENT, ".*"))
    files = digest(folder)
    sealed = {"content_sha256": content_sha256(files), "files": files, "lineage": {}}
    (folder / BUNDLE).write_text(json.dumps(sealed, indent=1) + "\n")
    return folder


def _perform(play: Play, bundles: dict[str, Path], stage: Path) -> tuple[dict[str, Actor], dict[str, Played]]:
    """Build a release of every bundle over one online store, start their servers, and ask them in turn."""
    from lrm.serving.process import running
    from lrm.serving.replay import ask

    actors = _cast(play, bundles, stage)
    with ExitStack() as stack:
        addresses, started = {}, {}
        replies: dict[str, list[Reply]] = {name: [] for name in actors}
        for name, actor in actors.items():
            start = time.perf_counter()
            addresses[name] = stack.enter_context(running(actor.release.folder, log=play.rehearsal / LOGS[name]))
            started[name] = time.perf_counter() - start
            ask(addresses[name], actor.probes[0], actor.release.as_of)  # the first request fills caches
        for row in range(len(actors[CHALLENGER].probes)):
            for name in sorted(actors, reverse=bool(row % 2)):  # neither is always the first
                replies[name].append(ask(addresses[name], actors[name].probes[row], actors[name].release.as_of))
    return actors, {name: Played(started[name], replies[name]) for name in actors}


def _cast(play: Play, bundles: dict[str, Path], stage: Path) -> dict[str, Actor]:
    from lrm.features.store import materialise_online
    from lrm.features.tables import read_manifest
    from lrm.schema import ITEM_ID, USER_ID, read_signals
    from lrm.serving.publish import build_release, declared_for
    from lrm.serving.replay import choose_probes

    as_of = datetime.fromisoformat(read_manifest(play.examples)["as_of"])
    place: dict[str, Any] = {"state": stage, "version": REHEARSED, "online": stage / "online"}
    declared, probes = {}, {}
    for name, bundle in bundles.items():
        declared[name] = declared_for(read_signals(bundle / "signals.json"), play.feature_repo, play.data)
        probes[name] = choose_probes(play.known, play.data, declared[name], as_of=as_of, n=play.n_users)
    asked = [probe for own in probes.values() for probe in own]
    only = {
        USER_ID: list(dict.fromkeys(probe.user_id for probe in asked)),
        ITEM_ID: list(dict.fromkeys(candidate[ITEM_ID] for probe in asked for candidate in probe.candidates)),
    }
    materialise_online(play.feature_repo, play.data, as_of, state=stage / "online", only=only)
    actors = {}
    for name, bundle in bundles.items():
        release = build_release(bundle, play.examples, play.data, play.feature_repo, name=name, **place)
        actors[name] = Actor(release, declared[name], probes[name])
    return actors


def _found(outcome: Outcome, played: dict[str, Played]) -> dict[str, Any]:
    import numpy as np

    from lrm.serving.skew import TOLERANCE

    seconds = {name: [spent for reply in one.replies for spent in reply.seconds] for name, one in played.items()}

    def latency(name: str, percentile: float) -> float | None:
        return round(1000 * float(np.percentile(seconds[name], percentile)), 3) if name in seconds else None

    return {
        "n_users": len(played[CHALLENGER].replies),
        "n_requests": len(seconds[CHALLENGER]),
        "n_skewed": outcome.n_skewed,
        "tolerance": TOLERANCE,
        "max_score_difference": outcome.score_difference,
        "max_probability_difference": outcome.probability_difference,
        "skew": [one._asdict() for one in outcome.skew[:N_LISTED]],
        "expired": outcome.expired,
        "latency_p50_ms": latency(CHALLENGER, 50),
        "latency_p99_ms": latency(CHALLENGER, 99),
        "champion_latency_p50_ms": latency(CHAMPION, 50),
        "champion_latency_p99_ms": latency(CHAMPION, 99),
        "start_seconds": round(played[CHALLENGER].start_seconds, 3),
    }
