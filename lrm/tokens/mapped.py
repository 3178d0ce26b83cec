"""A corpus whose arrays lie in files, which the system reads by the page and drops again when it wants the memory."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lrm.tokens.corpus import Corpus

MAPPED_FROM = 2**30
"""Bytes of a corpus from which training keeps it in files."""


def mapped(corpus: Corpus, folder: Path) -> Corpus:
    """The same corpus, its arrays mapped from files if together they have `MAPPED_FROM` bytes or more.

    Encoding, which came before, holds all of it in memory; from here on a corpus costs the pages that batches read, and
    those can be taken back. The files lose their names at once, so that their room is free when the process ends,
    however it ends.

    Args:
        corpus: in memory.
        folder: where the files lie, made if it is not there: on a disk, since in memory they would cost what they save.
    """
    parts = {field.name: getattr(corpus, field.name) for field in fields(corpus)}
    if _n_bytes(tuple(parts.values())) < MAPPED_FROM:
        return corpus
    folder.mkdir(parents=True, exist_ok=True)
    return replace(corpus, **{name: _mapped(part, folder) for name, part in parts.items()})


def _n_bytes(part: Any) -> int:
    return part.nbytes if isinstance(part, np.ndarray) else sum(map(_n_bytes, part))


def _mapped(part: Any, folder: Path) -> Any:
    """An array, or a tuple of such parts; names and other objects cannot be mapped and stay."""
    if not isinstance(part, np.ndarray):
        return getattr(part, "_make", tuple)(_mapped(one, folder) for one in part)
    if part.dtype.hasobject:
        return part
    with tempfile.NamedTemporaryFile(dir=folder, prefix="corpus-", suffix=".npy") as file:
        np.save(file, part)
        file.flush()
        return np.asarray(np.load(file.name, mmap_mode="r"))
