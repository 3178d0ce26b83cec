"""A release: everything a server needs to answer, in one folder, `state/serving/<name>/<version>/`.

    release.json    name, version, as_of, the types of the keys, the fields that a request may carry
    bundle/         the registered bundle, verified
    history.sqlite  the latest events of every user (`features.write_histories`)
    feature_repo/   the declarations
    online/         the feature store's registry and online store, as of `as_of`

A release is built and proved beside its place and then moved there; it never changes afterwards. The link
`state/serving/<name>/current` names the one in service.
"""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lrm.errors import ServingError
from lrm.registry import bundle as bundles

RELEASE, BUNDLE, HISTORIES, ONLINE, FEATURE_REPO, CURRENT = (
    "release.json",
    "bundle",
    "history.sqlite",
    "online",
    "feature_repo",
    "current",
)

N_KEPT = 2
"""Releases that stay: the one in service and the one before it, to roll back to; each holds a whole online store."""


class Release(NamedTuple):
    """One release; its folder holds the rest."""

    folder: Path
    name: str
    version: str
    as_of: datetime
    """UTC instant up to which events and signals are known."""
    key_types: dict[str, str]
    """`int64` or `string` for each join key: `user_id`, `item_id`, and those that a request brings."""


def root_of(state: Path, name: str) -> Path:
    """The folder of one model's releases."""
    return state / "serving" / name


def write_release(release: Release) -> None:
    """Write `release.json`."""
    facts: dict[str, Any] = release._asdict() | {"as_of": release.as_of.isoformat()}
    del facts["folder"]
    (release.folder / RELEASE).write_text(json.dumps(facts, indent=1) + "\n")


def read_release(folder: Path) -> Release:
    """Read a release, and verify its bundle.

    Raises:
        ServingError: the folder is no release.
        RegistryError: a file of the bundle is missing or was changed.
    """
    if not (folder / RELEASE).is_file():
        raise ServingError(
            f"{folder} is no release: it has no {RELEASE}; the step roll_out writes releases to state/serving/, "
            "so run `make run` first"
        )
    bundles.verify(folder / BUNDLE)
    facts = json.loads((folder / RELEASE).read_text())
    return Release(folder=folder, **(facts | {"as_of": datetime.fromisoformat(facts["as_of"])}))


def put_in_service(release: Release) -> Path:
    """Move a proved release from beside its place to it, let `current` name it, and remove all but the latest."""
    root, version = release.folder.parent, release.version
    place, old = root / version, root / f".{version}.old"
    if place.exists():
        place.rename(old)
    release.folder.rename(place)
    link = root / f".{CURRENT}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(version)
    link.replace(root / CURRENT)
    shutil.rmtree(old, ignore_errors=True)
    releases = [path.parent for path in root.glob(f"[!.]*/{RELEASE}") if not path.parent.is_symlink()]
    for stale in sorted(releases, key=lambda folder: -(folder / RELEASE).stat().st_mtime)[N_KEPT:]:
        shutil.rmtree(stale)
    return place


def remove_unfinished(root: Path) -> None:
    """Remove what a killed roll-out left."""
    for folder in [*root.glob(".*.partial"), *root.glob(".*.old")]:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
