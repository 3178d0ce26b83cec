"""What runs leave on this machine, and which of it is still of use.

runs/<id>/                  a run: report, manifest, what its steps kept; `.lock` is held meanwhile, `pinned` keeps it;
                            `interrupted` says that it was told to stop
runs/.artifacts/<id>/       the folders that its steps wrote
runs/.cache/<packages>/     the engine's entries: which folder holds the outputs of which inputs, for a set of packages
runs/.reproductions/<id>/   runs that `reproduce` made, with what theirs left beside them
runs/.checkpoints/<what>/   where a training that was killed goes on
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.lock import is_held
from local.prepare import RUN, versions
from lrm.errors import DataError
from lrm.manifest import RUN_MANIFEST, STARTED, read
from lrm.record import RECORD

ARTIFACTS, CACHE, CHECKPOINTS, WORKSPACE = ".artifacts", ".cache", ".checkpoints", ".workspace"
REPRODUCTIONS = ".reproductions"
LOCK, PINNED, LATEST = ".lock", "pinned", "latest"
INTERRUPTED = "interrupted"
Json = dict[str, Any]


def artifacts_of(run_dir: Path) -> Path:
    """Where the steps of a run write."""
    return run_dir.parent / ARTIFACTS / run_dir.name


def temporary_of(run_dir: Path) -> Path:
    """Where the steps of a run have their temporary folders: a short path, for the address of a socket has a limit."""
    return Path(tempfile.gettempdir()) / f"lrm-{run_dir.name}"


def cache_of(run_dir: Path) -> Path:
    """Where the engine keeps what a run may reuse: steps that ran with the same packages."""
    installed = json.dumps(versions(), sort_keys=True).encode()
    return run_dir.parent / CACHE / hashlib.sha256(installed).hexdigest()[:12]


def entries(runs: Path) -> dict[Path, list[Path]]:
    """The engine's cache entries: each file, and the folders that it names; none where it is torn."""
    return {path: list(_named(content_of(path))) for path in sorted(runs.glob(f"{CACHE}/*/*.json"))}


def content_of(path: Path) -> Json:
    """What a file says; nothing where it is missing, or torn by a machine that went down or a disk that was full."""
    try:
        content: Json = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content


def asked_of(runs: Path) -> list[tuple[Path, Json]]:
    """Every run with what was asked of it (`run.json`), oldest first; one that cannot say so is none."""
    folders = [path.parent for path in sorted(runs.glob(f"[!.]*/{RUN}")) if not path.parent.is_symlink()]
    return [(folder, asked) for folder in folders if (asked := content_of(folder / RUN))]


def run_folders(runs: Path) -> list[Path]:
    """Every run that has a manifest, oldest first."""
    return sorted(path.parent for path in runs.glob(f"[!.]*/{RUN_MANIFEST}") if not path.parent.is_symlink())


def find_run(asked: str, runs: Path) -> Path:
    """The folder of a run named by its id, its folder, or `latest`.

    Raises:
        DataError: there is no such run.
    """
    for folder in (runs / asked, Path(asked)):
        if (folder / RUN_MANIFEST).is_file():
            return folder.resolve()
    known = ", ".join(folder.name for folder in run_folders(runs)[-5:]) or "none"
    raise DataError(f"there is no run {asked!r} with a {RUN_MANIFEST} in {runs}; the latest there: {known}")


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Hold a run's lock, here and in the engine that is started meanwhile: the last of them to end lets it go."""
    with open(run_dir / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_running(run_dir: Path) -> bool:
    """Whether any process of a run is alive."""
    return is_held(run_dir / LOCK)


def remove_leftovers(runs: Path) -> list[Path]:
    """Remove what was left half-written, by killed runs and by killed steps of others. Returns the folders.

    Of a run that never ended those are all folders of steps that no cache entry names.
    """
    named = {folder for folders in entries(runs).values() for folder in folders}
    removed = []
    for run_dir in run_folders(runs):
        if is_running(run_dir):
            continue
        is_killed = read(run_dir)["state"] == STARTED
        tasks = [task for task in artifacts_of(run_dir).glob("*/*") if not any(task in path.parents for path in named)]
        removed += [task for task in tasks if is_killed or _is_torn(task)]
        removed += [path for path in (run_dir / WORKSPACE,) if path.is_dir()]
        shutil.rmtree(temporary_of(run_dir), ignore_errors=True)  # its name there may be another user's
    for folder in removed:
        shutil.rmtree(folder)
    return removed


def _is_torn(task: Path) -> bool:
    """Whether a step's own record says that it never ended, or is torn itself."""
    return any(content_of(path).get("state", "running") == "running" for path in task.glob(f"*/{RECORD}"))


def _named(value: Any) -> Iterator[Path]:
    """The folders that a cache entry names, wherever in it."""
    if isinstance(value, dict):
        if isinstance(value.get("uri"), str):
            yield Path(value["uri"])
        for one in value.values():
            yield from _named(one)
    elif isinstance(value, list):
        for one in value:
            yield from _named(one)
