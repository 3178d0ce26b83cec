"""Stored values that were damaged: each is one key's missing value, and spoils no other's answer.

What this project packs itself carries a checksum, which is compared before anything is parsed: what parses it is
written in Rust, and on damaged bytes may end the process. What the feature store writes has none; there each key whose
value cannot be parsed is found, and a value that is not of its signal's kind counts as damaged.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import polars as pl

from lrm.errors import DamagedError
from lrm.features.feast_repo import Kept
from lrm.limits import MAX_NUMBER
from lrm.schema import BAG, DENSE, EMBEDDING, Signal
from lrm.serving.engine.rust_panics import without_panics

K = TypeVar("K")
MARK, DIGEST_BYTES = b"lrm1", 16
"""A packed value: the mark of its form, the BLAKE2b digest of the content, the content."""


def packed(table: pl.DataFrame) -> bytes:
    """A table as one value with a checksum: an Arrow stream, compressed."""
    buffer = io.BytesIO()
    table.write_ipc_stream(buffer, compression="zstd")
    return MARK + _digest(buffer.getvalue()) + buffer.getvalue()


def unpacked(value: Any) -> pl.DataFrame:
    """The table that `packed` wrote.

    Raises:
        DamagedError: the value is not what was written.
    """
    start = len(MARK) + DIGEST_BYTES
    if not isinstance(value, bytes) or value[: len(MARK)] != MARK or value[len(MARK) : start] != _digest(value[start:]):
        raise DamagedError("a packed value is not what was written: its checksum differs")
    try:
        return without_panics(pl.read_ipc_stream, io.BytesIO(value[start:]))
    except Exception as error:
        raise DamagedError(f"a packed value cannot be read ({type(error).__name__}: {error})") from error


def as_declared(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A table with the columns of a schema; a column that it lacks, or that cannot be made of that kind, is null."""
    return table.select(_as_declared(table, name, kind) for name, kind in schema.items())


def read_each(read: Callable[[Sequence[K]], list[Kept]], keys: Sequence[K], nothing: Kept) -> list[Kept]:
    """What `read` says of many keys at once, with `nothing` in place of what cannot be parsed.

    Args:
        read: asks the store; raises DamagedError where the value of any key cannot be parsed.
        keys: of the values.
        nothing: what is said of a key whose value is damaged.
    """
    try:
        return read(keys)
    except DamagedError:
        if len(keys) == 1:
            return [nothing._replace(is_damaged=True)]
    half = len(keys) // 2
    return [*read_each(read, keys[:half], nothing), *read_each(read, keys[half:], nothing)]


def fitting(kept: Kept, signals: Sequence[Signal]) -> Kept:
    """What is kept of the signals of a view, a value that is not of its signal's kind taken for damaged: null."""
    fits = [value is None or _fits(value, signal) for value, signal in zip(kept.values, signals, strict=True)]
    if all(fits):
        return kept
    values = tuple(value if good else None for value, good in zip(kept.values, fits, strict=True))
    return kept._replace(values=values, is_damaged=True)


def _fits(value: Any, signal: Signal) -> bool:
    if signal.kind == EMBEDDING:
        return isinstance(value, list) and len(value) == signal.dim and all(map(_is_number, value))
    if signal.kind == BAG:
        return isinstance(value, list) and all(one is None or _is_category(one) for one in value)
    return _is_number(value) if signal.kind == DENSE else _is_category(value)


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float32 can hold, or NaN."""
    return isinstance(value, int | float) and (math.isnan(value) or abs(value) <= MAX_NUMBER)


def _is_category(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _as_declared(table: pl.DataFrame, name: str, kind: pl.DataType) -> pl.Series:
    nothing = pl.Series(name, [None], dtype=kind).new_from_index(0, table.height)
    if name not in table.columns:
        return nothing
    try:
        return table[name].cast(kind, strict=False)
    except pl.exceptions.PolarsError:
        return nothing


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
