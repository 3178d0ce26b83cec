"""Before the first step: the data folder, the run's own folder, and the versions that make reuse honest."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from local.notify import shown_words
from lrm import manifest
from lrm.config import to_json
from lrm.errors import DataError
from lrm.features.datasets.prepare import BUILDS, DATASET, files_of, name_of, prepare
from lrm.presets import preset
from lrm.storage import write_text

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path("data")
"""Where built-in data is prepared."""
REUSED = ("features", "validation", "tokens", "model", "training")
"""Rooms whose code makes what a later run reuses; the steps of all other rooms run every time."""
SOURCES = ("lrm", "components", "local", "feature_repo", "examples", "pipeline.py", "constraints.txt")
"""What a run's outcome may depend on, of all that git keeps."""
ENTRY = "pipeline.py"
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
"""What git sets for its hooks: there it would look at another repository than the one around this file."""
RUN = "run.json"
"""In a run's folder: what was asked of it."""
PROGRAM = (".py", ".j2", ".css", ".json")
"""Kinds of file that the installed package consists of."""
ASIDE = ("__pycache__", "data")
"""Names within a feature repo that no release carries."""
POLICY = "policy.toml"
"""In a feature repo: read by the gate alone, which judges anew in every run."""
DATA_NAMES = tuple(BUILDS)
PACKAGES = (
    "duckdb",
    "feast",
    "great-expectations",
    "kfp",
    "lightgbm",
    "mlflow",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "torch",
)


def find_data(data: str, data_root: Path | None) -> tuple[Path, Path]:
    """The data folder and its feature repo: built-in data by name, prepared on first use, or a folder of the user's.

    Raises:
        DataError: the name is unknown, the folder is not a data folder, or source files are missing or damaged.
    """
    if data in BUILDS:
        folder = prepare(data, data_root=data_root, out=DATA)
        own, example = PROJECT / "feature_repo", PROJECT / "examples" / data / "feature_repo"
        return folder.resolve(), example if example.is_dir() else own
    folder = Path(data).expanduser()
    if not (folder / DATASET).is_file():
        seen = "a folder without it" if folder.is_dir() else "no such folder"
        raise DataError(
            f"{data!r} is neither built-in data ({', '.join(BUILDS)}) nor a folder with {DATASET} ({seen}); "
            "docs/own-data.md shows how to lay out your own"
        )
    if not (folder / "feature_repo").is_dir():
        raise DataError(f"{folder} has no feature_repo/; copy the project's, and declare your signals in its views.py")
    return folder.resolve(), (folder / "feature_repo").resolve()


def start_run(
    data: Path,
    feature_repo: Path,
    *,
    runs: Path,
    state: Path,
    as_of: str,
    preset_name: str,
    seed: int,
    registry: str = "",
    ledger: str = "",
    allow_backfill: str = "",
    installed: dict[str, str] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Make the run's folder and write its `run.json` and `run_manifest.json`.

    Args:
        data: folder of the data.
        feature_repo: folder of the feature definitions.
        runs: where runs are kept.
        state: folder of what is in service.
        as_of: instant at which the data ends, "" for its own end.
        preset_name: of the configuration.
        seed: of every random draw.
        registry: address of the model registry, "" for a file in `state`.
        ledger: folder or address of the ledger, "" for the one that the registry remembers.
        allow_backfill: why a run with `as_of` may promote.
        installed: the `versions` that steps find, where they do not run on what is installed here.

    Returns:
        The folder, and the workflow's arguments.

    Raises:
        SchemaError: no preset has that name.
        DataError: `dataset.json` does not hold what it must.
    """
    configuration = json.loads(to_json(preset(preset_name)))
    name = name_of(data)
    state = state.resolve()
    arguments = {
        "data": str(data),
        "feature_repo": str(feature_repo),
        "model_name": name,
        "registry": registry or f"sqlite:///{state / 'mlflow.db'}",
        "state": str(state),
        "ledger": ledger if "://" in ledger or not ledger else str(Path(ledger).resolve()),
        "as_of": as_of,
        "allow_backfill": allow_backfill,
        "preset": preset_name,
        "seed": seed,
        "data_version": data_version(data),
        "code_version": code_version(feature_repo),
    }
    started = datetime.now(UTC)
    run_dir = runs.resolve() / f"{started:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    run_dir.mkdir(parents=True)
    facts = {
        "run_id": run_dir.name,
        "started": started.isoformat(),
        "command": shlex.join(["python", *shown_words(sys.argv)]),
        "data": name,
        "as_of": as_of,
        "preset": preset_name,
        "seed": seed,
        "code_version": arguments["code_version"],
        "parameters": arguments,
        "versions": installed or versions(),
    }
    write_text(run_dir / RUN, json.dumps(facts, indent=1) + "\n")
    manifest.begin(
        run_dir,
        arguments=arguments,
        configuration=configuration,
        declarations_sha256=declarations_version(feature_repo),
        code={"sha256": arguments["code_version"], **checkout()},
    )
    return run_dir, arguments


def checkout(project: Path = PROJECT) -> dict[str, Any]:
    """The `commit` that the sources are of, and whether they are `dirty`: changed since. Both null without git."""
    if _git(project, "ls-files", "--error-unmatch", ENTRY) is None:
        return {"commit": None, "dirty": None}  # of no repository, or inside one that does not hold it
    commit, changed = _git(project, "rev-parse", "HEAD"), _git(project, "status", "--porcelain", "--", *SOURCES)
    return {"commit": commit or None, "dirty": None if commit is None else bool(changed)}


def _git(project: Path, *words: str) -> str | None:
    own = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        done = subprocess.run(["git", *words], cwd=project, env=own, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def data_version(data: Path) -> str:
    """sha256 over the names and content of a data folder's tables and `dataset.json`.

    Raises:
        DataError: a table is no file.
    """
    return _digest(data, files_of(data))


def code_version(feature_repo: Path) -> str:
    """sha256 over all that decides what a reused step would write: the declarations, and the code of its rooms."""
    reused = [path for room in REUSED for path in (PROJECT / "lrm" / room).rglob("*.*")]
    sources = [*reused, *(PROJECT / "lrm").glob("*.py"), *(PROJECT / "components").glob("*.py")]
    project = _digest(PROJECT, sorted(path for path in sources if path.suffix != ".pyc"))
    return hashlib.sha256(f"{project} {declarations_version(feature_repo)}".encode()).hexdigest()


def program_version() -> str:
    """sha256 over all code that steps run, as it is installed here: the same in a checkout and in an image of it."""
    paths = [path for room in ("lrm", "components") for path in (PROJECT / room).rglob("*.*")]
    return _digest(PROJECT, sorted(path for path in paths if path.suffix in PROGRAM))


def declarations_version(feature_repo: Path) -> str:
    """sha256 over the feature definitions and all files beside them, which they may read; hidden ones left out."""
    places = [path.relative_to(feature_repo) for path in feature_repo.rglob("*") if path.is_file()]
    read = [place for place in places if not any(part.startswith(".") or part in ASIDE for part in place.parts)]
    return _digest(feature_repo, sorted(feature_repo / place for place in read if place != Path(POLICY)))


def versions() -> dict[str, str]:
    """What the run's results may depend on besides the code."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()
