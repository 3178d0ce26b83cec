"""A release: everything a server needs to answer, in one folder, `state/serving/<name>/<version>-<id>/`.

    files.json      every file, its size and its sha256 (`lrm.serving.release_contents`)
    release.json    name, version, as_of, the types of the keys, the fields that a request may carry
    bundle/         the registered bundle, verified
    items.parquet   the catalogue: every item that can be recommended, described as known at `as_of`
    index.safetensors  where the catalogue is large: how it is searched (`lrm.model.heads._index.Plan`)
    history.sqlite  the latest events of every user (`histories.write_histories`)
    feature_repo/   the declarations
    online/         the feature store's registry and online store, as of `as_of`

A release is built and proved under a hidden name and then renamed; it never changes afterwards, and none takes
another's place: the same version released again gets a folder of its own. The link `state/serving/<name>/current` names
the one that was rolled out last, and moves in one step, so a roll-out that is killed at any point leaves it whole.
Beside it a local feature store keeps new events, of all releases there, in `events/`.
"""

from __future__ import annotations

import json
import shutil
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lrm.errors import ServingError
from lrm.registry import bundle as bundles
from lrm.registry.ledger import locked
from lrm.serving.release_contents import verify, write_list

RELEASE, BUNDLE, ITEMS, INDEX, HISTORIES, ONLINE, FEATURE_REPO, CURRENT = (
    "release.json",
    "bundle",
    "items.parquet",
    "index.safetensors",
    "history.sqlite",
    "online",
    "feature_repo",
    "current",
)

N_KEPT = 2
"""Versions whose latest release stays: the one in service and the one that was before it, to roll back to; each release
holds a whole online store."""


class Release(NamedTuple):
    """One release; its folder holds the rest."""

    folder: Path
    name: str
    version: str
    as_of: datetime
    """UTC instant up to which events and signals are known."""
    key_types: dict[str, str]
    """`int64` or `string` for each join key: `user_id`, `item_id`, and those that a request brings."""
    catalogue_index: dict[str, Any] | None = None
    """The digest and the measured recall of the catalogue's index, as `with_index` gives them; None: there is none."""
    sha256: str = ""
    """The release's digest, which covers every file, as it was read; "" before it was finished."""


def root_of(state: Path, name: str) -> Path:
    """The folder of one model's releases."""
    return state / "serving" / name


def new_folder(root: Path, version: str) -> Path:
    """Make the hidden folder in which a release is built."""
    folder = root / f".{version}-{uuid.uuid4().hex[:8]}.partial"
    folder.mkdir(parents=True)
    return folder


def write_release(release: Release) -> Release:
    """Finish a release: write `release.json`, and the list of all files."""
    facts: dict[str, Any] = release._asdict() | {"as_of": release.as_of.isoformat()}
    del facts["folder"], facts["sha256"]
    (release.folder / RELEASE).write_text(json.dumps(facts, indent=1) + "\n")
    return release._replace(sha256=write_list(release.folder))


def read_release(folder: Path) -> Release:
    """Read a release, every file of it compared with its digest.

    Raises:
        ServingError: the folder is no release, or a file is missing, was changed or was added.
        RegistryError: its bundle was already another when the release was built.
    """
    for name in (RELEASE, ITEMS):
        if not (folder / name).is_file():
            raise ServingError(
                f"{folder} is no release: it has no {name}; the step roll_out writes releases to state/serving/, "
                "so run `make run` first"
            )
    sha256 = verify(folder)
    bundles.verify(folder / BUNDLE)
    facts = json.loads((folder / RELEASE).read_text())
    return Release(folder=folder, **(facts | {"as_of": datetime.fromisoformat(facts["as_of"]), "sha256": sha256}))


def latest_releases(root: Path) -> dict[str, Path]:
    """The folder of the latest release of each version, the latest version to be released first."""
    written = [path for path in root.glob(f"[!.]*/{RELEASE}") if not path.parent.is_symlink()]
    found: dict[str, Path] = {}
    for path in sorted(written, key=lambda path: -path.stat().st_mtime_ns):
        found.setdefault(json.loads(path.read_text())["version"], path.parent)
    return found


def in_service_as_of(root: Path) -> datetime | None:
    """Up to when the release that `current` names knows the world; None where there is none."""
    path = root / CURRENT / RELEASE
    return datetime.fromisoformat(json.loads(path.read_text())["as_of"]) if path.is_file() else None


def served_version(root: Path) -> str:
    """The version of the release that `current` names, "" where there is none."""
    path = root / CURRENT / RELEASE
    return str(json.loads(path.read_text())["version"]) if path.is_file() else ""


def serve_again(root: Path, version: str) -> Path | None:
    """Let `current` name the latest release of a version: servers that watch it follow.

    Returns:
        The release's folder; None where no release of that version is kept, and nothing was changed.

    Raises:
        ServingError: a file of the release is missing, was changed or was added.
    """
    with locked(root):
        place = latest_releases(root).get(version)
        if place is not None:
            verify(place)
            _point(root, place)
    return place


def put_in_service(release: Release) -> Path:
    """Give a proved release its name, let `current` name it, and remove all but it and the one that it takes over from.

    Args:
        release: the release, under its hidden name. Its version is the champion, and the caller holds it so
            (`lrm.registry.run.champion_held`).

    Returns:
        The release's folder.
    """
    root = release.folder.parent
    place = root / release.folder.name.removeprefix(".").removesuffix(".partial")
    with locked(root):
        before = served_version(root)
        release.folder.rename(place)
        _point(root, place)
        _remove_others(root, place, release.version, before)
    return place


def _remove_others(root: Path, place: Path, version: str, before: str) -> None:
    """Remove all releases but one and what to roll back to: the version that it takes over from, else the latest."""
    others = {other: path for other, path in latest_releases(root).items() if other != version}
    kept = {place, *sorted(others.values(), key=lambda path: path != others.get(before))[: N_KEPT - 1]}
    for path in [written.parent for written in root.glob(f"[!.]*/{RELEASE}")]:
        if path not in kept and not path.is_symlink():
            # Half removed it would pass for a release, were it to keep its name.
            shutil.rmtree(path.rename(path.with_name(f".{path.name}.partial")))


def _point(root: Path, place: Path) -> None:
    link = root / f".{CURRENT}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(place.name)
    link.replace(root / CURRENT)


def remove_unfinished(root: Path) -> None:
    """Remove what a killed roll-out left; a release that has its name is never touched."""
    for folder in root.glob(".*.partial"):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
