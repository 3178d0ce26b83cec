"""Variant `shuffled`, the main control: as `soft`, signals exchanged between similar rows (`lrm.tokens.strata`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrm.tokens.corpus import Corpus
from lrm.tokens.makers.soft import make as make
from lrm.tokens.signals import SignalArrays
from lrm.tokens.strata import donors, strata
from lrm.tokens.vocabulary import Vocabulary

SHUFFLE_SEED = 0


def change_corpus(corpus: Corpus, vocabulary: Vocabulary) -> Corpus:
    """Exchange the signals between similar rows of the same split.

    Requests exchange with requests that have a history of similar length; events and candidates with those that also
    have an item of similar popularity; items with items of similar popularity. Each row takes all signals of another
    row together. A row without a similar one keeps its own, so such a model says something only about many requests at
    once.
    """
    rng, similar = np.random.default_rng(SHUFFLE_SEED), strata(corpus, vocabulary)
    return replace(
        corpus,
        content_V=_rows(corpus.content_V, donors(similar.item_V, rng)),
        history_E=_rows(corpus.history_E, donors(similar.event_E, rng)),
        query_R=_rows(corpus.query_R, donors(similar.request_R, rng)),
        candidate_C=_rows(corpus.candidate_C, donors(similar.candidate_C, rng)),
    )


def _rows(signals: SignalArrays, rows: np.ndarray) -> SignalArrays:
    return SignalArrays(
        signals.bucket_NF[rows],
        signals.value_NF[rows],
        signals.sparse_NS[rows],
        tuple(bag[rows] for bag in signals.bags),
        tuple(embedding[rows] for embedding in signals.embeddings),
    )
