"""After the champion has moved: servers follow, by a kept release or by one made from the latest run's data."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from local import kept
from lrm import manifest


def add_runs_option(parser: argparse.ArgumentParser) -> None:
    """Add `--runs`."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="whose latest run says which data a missing release is made from (default: %(default)s)",
    )


def serve_version(registry: str, name: str, version: str, *, state: Path, runs: Path) -> int:
    """Let `current` name a release of a version, and say so.

    Args:
        registry: address of the model registry.
        name: the registered model.
        version: its champion.
        state: the folder that holds `serving/`.
        runs: whose latest run of this model says which data and declarations a missing release is made from.

    Returns:
        0; 1 where servers go on as they are.

    Raises:
        LrmError: the release could not be made, or does not serve what it scores offline. Servers go on as they are.
    """
    from lrm.serving.release import CURRENT, root_of, serve_again

    root = root_of(state, name)
    if (release := serve_again(root, version)) is None:
        run = _latest_run(runs, name)
        if run is None:
            print(
                f"not yet in service: {root} keeps no release of version {version}, and {runs} has no run whose data "
                "it could be made from, so servers go on as they are; `make run` makes one and puts it in service"
            )
            return 1
        print(f"no release of version {version} is kept; making one from {run['data']['folder']}", flush=True)
        if reason := _made(run, registry, name, version, state):
            print(f"not yet in service: {reason}")
            return 1
        release = (root / CURRENT).resolve()
    print(f"in service: {release}; servers that watch {root / CURRENT} follow, others must be started again")
    return 0


def _latest_run(runs: Path, name: str) -> dict[str, Any] | None:
    """The manifest of the latest run on data of that name, if they are still there."""
    for folder in reversed(kept.run_folders(runs)):
        facts = manifest.read(folder)
        places = (facts["data"]["folder"], facts["features"]["folder"])
        if facts["data"]["name"] == name and all(place and Path(place).is_dir() for place in places):
            return facts
    return None


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
