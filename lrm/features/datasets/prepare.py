"""Prepare a built-in data set's folder once, and reuse it while neither its sources nor its recipe have changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrm.errors import DataError
from lrm.features import files
from lrm.features.datasets import amazon_beauty, complete_journey, movielens_1m, movielens_100k
from lrm.features.events import read_dataset

Build = Callable[[Path | None, Path], dict[str, Any]]
"""(data root, an empty folder to fill) -> what goes into dataset.json."""

BUILDS: dict[str, Build] = {
    "complete-journey": complete_journey.build_sample,
    "complete-journey-full": complete_journey.build_full,
    "ml-100k": movielens_100k.build,
    "ml-1m": movielens_1m.build,
    "amazon-beauty": amazon_beauty.build,
}
DATASET = files.DATASET


def name_of(folder: Path) -> str:
    """The name that a data folder gives itself.

    Raises:
        DataError: its dataset.json is missing, damaged, or says something impossible.
    """
    name: str = read_dataset(folder)["name"]
    return name


def files_of(folder: Path) -> list[Path]:
    """What the content of a data folder consists of, sorted.

    Raises:
        DataError: one of its tables is no file.
    """
    return files.files_of(folder)


def prepare(name: str, *, data_root: Path | None, out: Path) -> Path:
    """Write the data folder `out/name`, or find it already whole; return its path.

    Args:
        name: one of `BUILDS`.
        data_root: the folder that holds `ml-100k/`, `ml-1m/`, `amazon-beauty/`; Complete Journey needs none.
        out: the folder of data folders.

    Raises:
        DataError: the name is unknown, or a source file is missing or damaged.
    """
    if name not in BUILDS:
        raise DataError(f"no built-in data is called {name!r}; there are {', '.join(BUILDS)}, or give a data folder")
    target, recipe = out / name, _recipe()
    if _recipe_of(target) == recipe:
        return target
    partial = out / f".{name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        dataset = BUILDS[name](data_root, partial)
        (partial / DATASET).write_text(json.dumps({"name": name, "recipe": recipe} | dataset, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _recipe() -> str:
    """sha256 over the source of this package: a folder made by other code is made again."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _recipe_of(folder: Path) -> str | None:
    path = folder / DATASET
    return json.loads(path.read_text()).get("recipe") if path.is_file() else None
