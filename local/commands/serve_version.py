"""After the champion has moved: servers follow, by a kept release or by one made from data that validation passed."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from local import run_layout
from local.prepare import data_version, declarations_version
from lrm import manifest
from lrm.features.datasets.prepare import DATASET
from lrm.record import read_records

VALIDATED = ("succeeded", "reused")


def add_runs_option(parser: argparse.ArgumentParser) -> None:
    """Add `--runs`."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="whose latest run with validated data says what a missing release is made from (default: %(default)s)",
    )


def serve_version(registry: str, name: str, version: str, *, state: Path, runs: Path) -> int:
    """Let `current` name a release of a version, and say so.

    Args:
        registry: address of the model registry.
        name: the registered model.
        version: its champion.
        state: the folder that holds `serving/`.
        runs: whose latest run of this model that validated its data says which data and declarations a missing
            release is made from.

    Returns:
        0; 1 where servers go on as they are.

    Raises:
        LrmError: the release could not be made, or does not serve what it scores offline. Servers go on as they are.
    """
    from lrm.registry.run import champion_held
    from lrm.serving.release import CURRENT, root_of, serve_again
    from lrm.serving.run import no_longer_champion

    root = root_of(state, name)
    with champion_held(registry, name) as champion:
        release = serve_again(root, version) if champion == version else None
    if champion != version:
        print(f"not in service: {no_longer_champion(version, champion)}")
        return 1
    if release is None:
        run = _last_validated(runs, name)
        why_not = _unfit(run) if run else f"{runs} has no run whose data passed validation"
        if run is None or why_not:
            print(
                f"not yet in service: {root} keeps no release of version {version}, and none can be made: {why_not}; "
                f"servers go on as they are. Run the workflow on data of {name!r} that pass validation (`make run`): "
                "it makes the release and puts it in service"
            )
            return 1
        print(f"no release of version {version} is kept; making one from {run['data']['folder']}", flush=True)
        if reason := _made(run, registry, name, version, state):
            print(f"not yet in service: {reason}")
            return 1
        release = (root / CURRENT).resolve()
    print(f"in service: {release}; servers that watch {root / CURRENT} follow, others must be started again")
    return 0


def _last_validated(runs: Path, name: str) -> dict[str, Any] | None:
    """The manifest of the latest run on data of that name whose data passed validation."""
    for folder in reversed(run_layout.run_folders(runs)):
        facts = manifest.read(folder)
        if facts["data"]["name"] == name and read_records(folder).get("validate_data", {}).get("state") in VALIDATED:
            return facts
    return None


def _unfit(run: dict[str, Any]) -> str:
    """Why no release can be made from what a run has read; "" if one can."""
    read = (
        ("data", run["data"], DATASET, data_version, run["data"]["sha256"]),
        ("declarations", run["features"], "", declarations_version, run["features"]["declarations_sha256"]),
    )
    for what, place, landmark, digest, validated in read:
        folder = place["folder"]
        if not folder or not Path(folder, landmark).exists():
            return (
                f"run {run['run_id']} read its {what} from {folder or 'a folder it does not name'}, which is not here"
            )
        if digest(Path(folder)) != validated:
            return f"the {what} in {folder} are no longer what run {run['run_id']} validated"
    return ""


def _made(run: dict[str, Any], registry: str, name: str, version: str, state: Path) -> str:
    """Make a release and put it in service; why not, "" if it is."""
    from lrm.features.run import retrieve_features
    from lrm.serving.run import roll_out

    data, feature_repo = Path(run["data"]["folder"]), Path(run["features"]["folder"])
    with tempfile.TemporaryDirectory() as scratch:
        examples, rolled_out = Path(scratch, "examples"), Path(scratch, "rolled_out")
        retrieve_features(data, feature_repo, examples, as_of=run["data"]["asked_as_of"])
        rolled_out.mkdir()
        asked = {"registry": registry, "name": name, "version": version}
        done = roll_out(examples, rolled_out, data=data, feature_repo=feature_repo, state=state, **asked)
    return str(done.get("skipped", ""))
