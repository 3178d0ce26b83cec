"""Columns of signals as arrays and tensors of indices and numbers, ready for a token maker.

Shape suffixes: N rows, F dense signals, S sparse signals, P places of a bag, W width of an embedding signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lrm.errors import SchemaError
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.tokens.vocabulary import FIRST_CATEGORY, MISSING, UNKNOWN, Vocabulary, signed_log


class SignalArrays(NamedTuple):
    """One table's signals. `bags` and `embeddings` hold one array per signal, in declared order."""

    bucket_NF: np.ndarray
    """int16: 0 missing, then 1 + the quantile bucket."""
    value_NF: np.ndarray
    """float32 standard score of the signed logarithm; 0 where missing."""
    sparse_NS: np.ndarray
    """int32: 0 missing, 1 unknown, then the category."""
    bags: tuple[np.ndarray, ...]
    """(N, P) int32 each, 0 where the bag is shorter; of a sequence the latest members, the latest first."""
    embeddings: tuple[np.ndarray, ...]
    """(N, W) float32 each, NaN where missing."""

    def take(self, rows: np.ndarray) -> SignalTensors:
        """The chosen rows as tensors; vectors in torch's own aligned memory, or a product's last bit may differ."""
        return SignalTensors(
            torch.as_tensor(self.bucket_NF[rows]).int(),
            torch.as_tensor(self.value_NF[rows]),
            torch.as_tensor(self.sparse_NS[rows]),
            tuple(torch.as_tensor(bag[rows]) for bag in self.bags),
            tuple(torch.as_tensor(embedding[rows]).clone() for embedding in self.embeddings),
        )


class SignalTensors(NamedTuple):
    """`SignalArrays` as tensors."""

    bucket_NF: Tensor
    value_NF: Tensor
    sparse_NS: Tensor
    bags: tuple[Tensor, ...]
    embeddings: tuple[Tensor, ...]


def of_kind(signals: Sequence[Signal], kind: str) -> list[Signal]:
    """The signals of one kind, in declared order: the order of the columns above."""
    return [signal for signal in signals if signal.kind == kind]


def encode(frame: pl.DataFrame, signals: Sequence[Signal], vocabulary: Vocabulary) -> SignalArrays:
    """Encode the columns of `signals`.

    Raises:
        SchemaError: the frame has no column for one of them.
    """
    for signal in signals:
        if signal.name not in frame.columns:
            raise SchemaError(
                f"the data have no column for signal {signal.name!r} of view {signal.view!r}, which the model was "
                "trained on; bring the signal back, or train a model without it"
            )
    n = frame.height
    dense, sparse = of_kind(signals, DENSE), of_kind(signals, SPARSE)
    bucket_NF = np.zeros((n, len(dense)), dtype=np.int16)
    value_NF = np.zeros((n, len(dense)), dtype=np.float32)
    for column, signal in enumerate(dense):
        bucket_NF[:, column], value_NF[:, column] = _encode_dense(frame[signal.name], signal, vocabulary)
    sparse_NS = np.zeros((n, len(sparse)), dtype=np.int32)
    for column, signal in enumerate(sparse):
        sparse_NS[:, column] = _encode_category(frame[signal.name], vocabulary.categories[signal.name])
    bags = tuple(_encode_bag(frame[signal.name], signal, vocabulary) for signal in of_kind(signals, BAG))
    embeddings = tuple(_encode_embedding(frame[signal.name], signal) for signal in of_kind(signals, EMBEDDING))
    return SignalArrays(bucket_NF, value_NF, sparse_NS, bags, embeddings)


def _encode_dense(column: pl.Series, signal: Signal, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    values = column.cast(pl.Float64).to_numpy()  # a null is NaN
    is_known = np.isfinite(values)
    known = np.where(is_known, values, 0.0)
    mean, deviation = vocabulary.scales[signal.name]
    bucket = 1 + np.searchsorted(vocabulary.edges[signal.name], known, side="right")
    score = ((signed_log(known) - mean) / deviation).clip(*vocabulary.limits[signal.name])
    return np.where(is_known, bucket, MISSING), np.where(is_known, score, 0.0)


def _encode_category(column: pl.Series, categories: list[str]) -> np.ndarray:
    """With few expressions: they cost more than all else where the rows are few, as in a server."""
    code = column.cast(pl.String).cast(pl.Enum(categories), strict=False).to_physical().cast(pl.Float64).to_numpy()
    index = np.where(np.isnan(code), UNKNOWN, code + FIRST_CATEGORY).astype(np.int32)
    return np.where(column.is_null().to_numpy(), MISSING, index) if column.null_count() else index


def _encode_bag(column: pl.Series, signal: Signal, vocabulary: Vocabulary) -> np.ndarray:
    width = vocabulary.bag_widths[signal.name]
    bag_NP = np.zeros((len(column), width), dtype=np.int32)
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    if signal.ordered:
        column = column.list.reverse()
    inner = column.list.explode(keep_nulls=False, empty_as_null=False)
    row = np.repeat(np.arange(len(column)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    fits = place < width
    bag_NP[row[fits], place[fits]] = _encode_category(inner, vocabulary.categories[signal.name])[fits]
    return bag_NP


def _encode_embedding(column: pl.Series, signal: Signal) -> np.ndarray:
    width = signal.dim or 0
    embedding_NW = np.full((len(column), width), np.nan, dtype=np.float32)
    is_known = (column.is_not_null() & (column.list.len() == width)).to_numpy()
    if is_known.any():
        flat = column.filter(pl.Series(is_known)).list.explode(keep_nulls=True, empty_as_null=False)
        embedding_NW[is_known] = flat.cast(pl.Float32).to_numpy().reshape(-1, width)
    embedding_NW[~np.isfinite(embedding_NW).all(axis=1)] = np.nan
    return embedding_NW
