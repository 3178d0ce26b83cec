"""The examples folder as polars frames: what every later room reads (see docs/artifacts.md, section 2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import DataError
from lrm.schema import Signal, read_signals

MANIFEST = "manifest.json"
SIGNALS = "signals.json"


class Tables(NamedTuple):
    """The five tables of an examples folder, ordered as docs/artifacts.md says."""

    events: pl.DataFrame
    requests: pl.DataFrame
    candidates: pl.DataFrame
    targets: pl.DataFrame
    items: pl.DataFrame


def read(examples: Path) -> Tables:
    """Read all five tables.

    Raises:
        DataError: a table is not there.
    """
    paths = [examples / f"{name}.parquet" for name in Tables._fields]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is missing; an examples folder is written by the step retrieve_features")
    return Tables(*(pl.read_parquet(path, glob=False) for path in paths))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json` of an examples or model folder."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{path} is missing; {folder.name} is not a folder that a pipeline step finished")
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def read_declared(folder: Path) -> tuple[Signal, ...]:
    """Read `signals.json` of an examples or model folder."""
    return read_signals(folder / SIGNALS)
