"""What may go: runs, artifacts, releases and files of versions that no champion, rollback target or pinned run needs.

Needed are the versions that the ledger names, those that an alias names, and the runs that made them; pinned runs; and
the latest run, whose steps the next one reuses. Where a horizon is asked for, versions that left service before it are
no longer needed. A version's row in the registry always stays: its number, tags and metrics; only its files can go.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from local import run_layout
from lrm.errors import DataError
from lrm.record import read_records


class Needed(NamedTuple):
    """What the registry needs."""

    runs: frozenset[str]
    """Ids of the runs that made a needed version, or moved a champion."""
    versions: dict[str, frozenset[str]]
    """By model: the versions that the ledger or an alias names."""
    files: tuple[Path, ...]
    """Where the files of those versions lie."""


class Horizon(NamedTuple):
    """How long versions that were in service keep their files."""

    before: datetime
    """UTC instant; those that left service earlier may give them up."""
    keep_last: int
    """So many keep them however long ago that was: of those that served last, and of those a rollback goes through."""


class Item(NamedTuple):
    """Something that may go."""

    path: Path
    why: str


def outlived(held: dict[str, Any], horizon: Horizon) -> frozenset[str]:
    """The versions of a model that a horizon lets go: each was in service, and left it before.

    Args:
        held: what `lrm.registry.run.show` says of the model.
        horizon: how long files are kept.
    """
    served = {one: move["time"] for move in held["moves"] for one in (move["previous"], move["version"]) if one}
    lately = sorted(served, key=lambda one: datetime.fromisoformat(served[one]))[-horizon.keep_last :]
    interrupted = held["interrupted"] or {"previous": "", "version": ""}
    stay = {held["champion"], held["challenger"], interrupted["previous"], interrupted["version"]}
    stay |= {*lately, *held["champions"][-horizon.keep_last :]}
    return frozenset(
        one for one, time in served.items() if datetime.fromisoformat(time) < horizon.before and one not in stay
    )


def unneeded(runs: Path, state: Path, needed: Needed) -> list[Item]:
    """Everything that may go, cache entries first: none is ever left that names a folder which is gone.

    Raises:
        DataError: a run is going on, and may be about to reuse what would go.
    """
    runs, state = runs.resolve(), state.resolve()
    if running := [folder.name for folder in run_layout.run_folders(runs) if run_layout.is_running(folder)]:
        raise DataError(f"run {running[0]} is going on and may reuse what would go; prune once it has ended")
    stay = [folder for folder in run_layout.run_folders(runs) if _stays(folder, needed)]
    folders = [*_runs(runs, stay), *_artifacts(runs, stay), *_scratch(runs)]
    gone = {item.path for item in folders}
    entries = [
        Item(entry, "names what is gone")
        for entry, named in run_layout.entries(runs).items()
        if any(not path.exists() or gone & {path, *path.parents} for path in named)
    ]
    return [*entries, *folders, *_releases(state, needed), *_files(state, needed)]


def remove(items: list[Item]) -> None:
    """Remove what `unneeded` found, in its order."""
    for item in items:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file() and not one.is_symlink())


def _stays(run_dir: Path, needed: Needed) -> bool:
    is_latest = run_dir == (run_dir.parent / run_layout.LATEST).resolve()
    return is_latest or run_dir.name in needed.runs or (run_dir / run_layout.PINNED).is_file()


def _runs(runs: Path, stay: list[Path]) -> Iterator[Item]:
    for folder in run_layout.run_folders(runs):
        if folder not in stay:
            yield Item(folder, "a run that no champion or rollback target came from")


def _artifacts(runs: Path, stay: list[Path]) -> Iterator[Item]:
    """What the steps of other runs wrote, but for what a run that stays has read."""
    read = {Path(path) for run_dir in stay for record in read_records(run_dir).values() for path in record["inputs"]}
    names = {folder.name for folder in stay}
    for folder in sorted((runs / run_layout.ARTIFACTS).glob("*")):
        if folder.name in names:
            continue
        if not any(folder in path.parents for path in read):
            yield Item(folder, "what the steps of such a run wrote")
            continue
        for task in sorted(folder.glob("*/*")):
            if not any(task in (path, *path.parents) for path in read):
                yield Item(task, "what a step of such a run wrote")


def _scratch(runs: Path) -> Iterator[Item]:
    for folder in sorted((runs / run_layout.CHECKPOINTS).glob("*")):
        yield Item(folder, "where a killed training would go on")
    if (runs / run_layout.REPRODUCTIONS).is_dir():
        yield Item(runs / run_layout.REPRODUCTIONS, "runs made to be compared")


def _releases(state: Path, needed: Needed) -> Iterator[Item]:
    """All but the one in service and the latest of each needed version."""
    for root in sorted((state / "serving").glob("*")):
        seen: set[str] = set()
        written = [path for path in root.glob("[!.]*/release.json") if not path.parent.is_symlink()]
        for path in sorted(written, key=lambda path: -path.stat().st_mtime_ns):
            version = json.loads(path.read_text())["version"]
            is_newest = version not in seen
            seen.add(version)
            is_served = path.parent == (root / "current").resolve()
            if not is_served and not (is_newest and version in needed.versions.get(root.name, ())):
                yield Item(path.parent, f"a release of version {version}")


def _files(state: Path, needed: Needed) -> Iterator[Item]:
    """The files of versions that nothing names, and of registrations that were killed half-way."""
    for folder in sorted((state / "artifacts/models").glob("*")):
        if not any(folder in path.parents for path in needed.files):
            yield Item(folder, "files of a version that nobody needs")
