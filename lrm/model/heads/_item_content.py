"""What an item is, as a vector: the input of semantic codes.

Where items have embedding signals (of their text, say), these are the vector; else their numbers, and their categories
in a multi-hot form that is hashed to a fixed width (2009, Weinberger et al.: no table to store). Items without any
signal are described by the company they keep in training histories: positive pointwise mutual information of items that
stand near each other, its leading eigenvectors.

Shape suffixes: V items, W width, U users, E events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lrm.schema import DENSE, EMBEDDING, Signal
from lrm.tokens.corpus import Corpus
from lrm.tokens.signals import SignalArrays, of_kind
from lrm.tokens.vocabulary import FIRST_CATEGORY, content_signals

HASHED = 256
"""Width of the hashed categories."""
COMPANY_WIDTH = 64
"""Width of the vectors of items that have no signal."""
NEAR = 3
"""Steps of a history within which two items keep company."""
ROUNDS = 8


def has_content(signals: Sequence[Signal]) -> bool:
    """Whether items have a signal."""
    return bool(content_signals(signals))


def content_width(signals: Sequence[Signal]) -> int:
    """W."""
    content = content_signals(signals)
    if not content:
        return COMPANY_WIDTH
    embeddings = of_kind(content, EMBEDDING)
    if embeddings:
        return sum(signal.dim or 0 for signal in embeddings)
    return len(of_kind(content, DENSE)) + HASHED


def content_vectors(content_V: SignalArrays) -> np.ndarray:
    """(V, W) float32, NaN where an embedding is missing."""
    if content_V.embeddings:
        return np.concatenate(content_V.embeddings, axis=1)
    hashed_VW = np.zeros((len(content_V.value_NF), HASHED), dtype=np.float32)
    rows = np.arange(len(hashed_VW))
    for salt, code_V in enumerate(_categories(content_V)):
        column_V, sign_V = _hashed(code_V, salt)
        np.add.at(hashed_VW, (rows, column_V), np.where(code_V >= FIRST_CATEGORY, sign_V, 0.0))
    return np.concatenate([content_V.value_NF, hashed_VW], axis=1)


def company_vectors(corpus: Corpus, *, seed: int) -> np.ndarray:
    """(V, W) float32 for items without signals; zero for those that stand in no training event."""
    from scipy import sparse

    n_items = len(corpus.item_ids)
    user_E = np.repeat(np.arange(len(corpus.user_offset_U) - 1), np.diff(corpus.user_offset_U))
    is_train_E, row_E = corpus.event_is_train_E, corpus.event_row_E
    counts = sparse.csr_matrix((n_items, n_items), dtype=np.float64)
    for ahead in range(1, NEAR + 1):
        is_pair = (user_E[:-ahead] == user_E[ahead:]) & is_train_E[:-ahead] & is_train_E[ahead:]
        one, other = row_E[:-ahead][is_pair], row_E[ahead:][is_pair]
        pair = sparse.coo_matrix((np.full(len(one), 1.0 / ahead), (one, other)), shape=counts.shape)
        counts = counts + pair.tocsr() + pair.T.tocsr()
    counts = counts.tocoo()
    total_V = np.asarray(counts.sum(1)).ravel()
    information = np.log(counts.data * total_V.sum() / (total_V[counts.row] * total_V[counts.col]).clip(1e-12))
    shared = sparse.csr_matrix((information.clip(0), (counts.row, counts.col)), shape=counts.shape)
    rng, width = np.random.default_rng(seed), min(COMPANY_WIDTH, n_items)
    basis_VW = np.linalg.qr(rng.normal(size=(n_items, width)))[0]
    for _ in range(ROUNDS):
        basis_VW = np.linalg.qr(shared @ basis_VW)[0]
    strength_W = np.sqrt(np.abs(np.einsum("vw,vw->w", basis_VW, shared @ basis_VW)))
    vector_VW = np.zeros((n_items, COMPANY_WIDTH), dtype=np.float32)
    vector_VW[:, :width] = basis_VW * strength_W
    vector_VW[np.bincount(row_E[is_train_E], minlength=n_items) == 0] = 0.0
    return vector_VW


def _categories(content_V: SignalArrays) -> Iterator[np.ndarray]:
    """(V,) the codes of each sparse signal, then of each place of a bag; the places of a bag are hashed alike."""
    yield from content_V.sparse_NS.T
    for bag_VP in content_V.bags:
        yield from bag_VP.T


def _hashed(code_V: np.ndarray, salt: int) -> tuple[np.ndarray, np.ndarray]:
    """(V,) column and sign of each category (Knuth's multiplicative hash)."""
    mixed_V = (code_V.astype(np.uint64) * np.uint64(2_654_435_761) + np.uint64(salt * 40_503)) % np.uint64(2**32)
    return (mixed_V >> np.uint64(24)).astype(np.int64), np.where((mixed_V >> np.uint64(23)) & np.uint64(1), 1.0, -1.0)
