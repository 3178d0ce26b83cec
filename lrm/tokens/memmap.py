"""A corpus whose arrays lie in files: the system reads them by the page, and drops pages when it needs the memory."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lrm.tokens.corpus import Corpus

MEMMAP_FROM = 2**30
"""Bytes: a corpus of this size or more is kept in files during training."""


def memory_mapped(corpus: Corpus, folder: Path, *, from_bytes: int = MEMMAP_FROM) -> Corpus:
    """Return the same corpus, with its arrays in files if together they take `from_bytes` or more.

    Encoding still holds the whole corpus in memory. From here on it costs only the pages that batches read, and the
    system can take those back. Each file is deleted as soon as it is open, so the disk space is free when the process
    ends, however it ends.

    Args:
        corpus: in memory.
        folder: where to write the files; made if it does not exist. It must be on a disk, not in memory.
        from_bytes: a smaller corpus stays in memory.
    """
    arrays = {field.name: getattr(corpus, field.name) for field in fields(corpus)}
    if _n_bytes(tuple(arrays.values())) < from_bytes:
        return corpus
    folder.mkdir(parents=True, exist_ok=True)
    return replace(corpus, **{name: _in_file(array, folder) for name, array in arrays.items()})


def _n_bytes(array: Any) -> int:
    return array.nbytes if isinstance(array, np.ndarray) else sum(map(_n_bytes, array))


def _in_file(array: Any, folder: Path) -> Any:
    """Map an array, or a tuple of arrays; arrays of Python objects stay in memory."""
    if not isinstance(array, np.ndarray):
        return getattr(array, "_make", tuple)(_in_file(element, folder) for element in array)
    if array.dtype.hasobject:
        return array
    with tempfile.NamedTemporaryFile(dir=folder, prefix="corpus-", suffix=".npy") as file:
        np.save(file, array)
        file.flush()
        return np.asarray(np.load(file.name, mmap_mode="r"))
