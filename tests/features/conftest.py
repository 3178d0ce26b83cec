"""A small data folder, once for the whole room, and copies of it for tests that spoil theirs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lrm.features.run import retrieve_features
from tests.data_worlds import write_data_folder


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that no test may change."""
    return write_data_folder(tmp_path_factory.mktemp("data") / "world", n_users=20, n_candidates=4)


@pytest.fixture(scope="session")
def examples(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples made from it."""
    folder = tmp_path_factory.mktemp("examples")
    retrieve_features(untouched, untouched / "feature_repo", folder)
    return folder


@pytest.fixture
def data(untouched: Path, tmp_path: Path) -> Path:
    """A copy of the data folder, to spoil."""
    return Path(shutil.copytree(untouched, tmp_path / "world"))


@pytest.fixture
def retrieve(tmp_path: Path) -> Callable[..., Path]:
    """Run the door on a data folder with its own feature repo."""

    def run(data: Path, **options: Any) -> Path:
        examples = tmp_path / f"examples-{len(list(tmp_path.iterdir()))}"
        retrieve_features(data, data / "feature_repo", examples, **options)
        return examples

    return run


def change(data: Path, table: str, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Rewrite one table of a data folder."""
    path = data / f"{table}.parquet"
    edit(pl.read_parquet(path, glob=False)).write_parquet(path)


def change_dataset(data: Path, **values: Any) -> None:
    """Rewrite keys of `dataset.json`; None takes a key out."""
    path = data / "dataset.json"
    dataset = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in dataset.items() if value is not None}))


def change_views(data: Path, old: str, new: str) -> None:
    """Replace a text in the feature repo's views."""
    path = data / "feature_repo" / "views.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
