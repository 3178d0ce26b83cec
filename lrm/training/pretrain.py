"""Pretraining of the token factory, without the decoder: its tokens must already carry the signals.

Four tasks at once: predict hidden signals from the tokens of the rest; bring the vectors of items bought close together
near each other; predict the next item from a decayed mean of the last history tokens alone; and predict a candidate's
outcome from its own tokens alone, through the head that joint training goes on with. A decoder's blocks begin as the
identity, so joint training starts where this ends.

Shape suffixes: N rows, F dense signals, M signals, P pairs, D token width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrm.config import TrainingConfig
from lrm.model.device import seeded
from lrm.model.recommender import Recommender
from lrm.progress import progress
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import TokenFactory, forget_identities
from lrm.tokens.makers import PretrainableMaker
from lrm.tokens.signals import SignalArrays, SignalTensors, of_kind
from lrm.tokens.vocabulary import MISSING, Vocabulary
from lrm.training.optimizer import learning_rate, make_optimizer, step

RECENT_EVENTS = 8
DECAY = 0.8
"""Of a history token's weight, each event further back, in the next-item task."""
PAIR_REACH = 3
"""Two events of a user at most this far apart agree in the contrastive task."""


class SignalHeads(nn.Module):
    """Predict each signal of a maker from its tokens (N, K, D): Huber, cross-entropy, multi-label, cosine by kind."""

    def __init__(self, signals: Sequence[Signal], vocabulary: Vocabulary, *, d_in: int) -> None:
        super().__init__()
        self.n_dense = len(of_kind(signals, DENSE))
        self.dense = nn.Linear(d_in, self.n_dense) if self.n_dense else None
        self.sparse, self.bags = (
            nn.ModuleList(nn.Linear(d_in, vocabulary.n_categories(signal)) for signal in of_kind(signals, kind))
            for kind in (SPARSE, BAG)
        )
        self.vectors = nn.ModuleList(nn.Linear(d_in, signal.dim or 0) for signal in of_kind(signals, EMBEDDING))

    def forward(self, tokens_NKD: Tensor, signals: SignalTensors, is_masked_NM: Tensor) -> Tensor:
        """Mean loss over the hidden values that are known; 0 where there are none."""
        x_N = tokens_NKD.flatten(1)
        losses, counts = [], []
        if self.dense is not None:
            is_scored_NF = is_masked_NM[:, : self.n_dense] & (signals.bucket_NF != MISSING)
            error_NF = functional.huber_loss(self.dense(x_N), signals.value_NF, reduction="none")
            losses.append((error_NF * is_scored_NF).sum())
            counts.append(is_scored_NF.sum())
        others = iter(is_masked_NM[:, self.n_dense :].unbind(1))
        for head, value_N in zip(self.sparse, signals.sparse_NS.long().unbind(1), strict=True):
            rows = next(others) & (value_N != MISSING)
            losses.append(functional.cross_entropy(head(x_N[rows]), value_N[rows], reduction="sum"))
            counts.append(rows.sum())
        for head, bag_NP in zip(self.bags, signals.bags, strict=True):
            rows = next(others) & (bag_NP != MISSING).any(1)
            logits = head(x_N[rows])
            members = torch.zeros_like(logits).scatter_(1, bag_NP[rows].long(), 1.0)
            members[:, MISSING] = 0.0
            per_row = functional.binary_cross_entropy_with_logits(logits, members, reduction="none").mean(1)
            losses.append(per_row.sum())
            counts.append(rows.sum())
        for head, vector_NV in zip(self.vectors, signals.embeddings, strict=True):
            rows = next(others) & ~vector_NV.isnan().any(1)
            losses.append((1 - functional.cosine_similarity(head(x_N[rows]), vector_NV[rows])).sum())
            counts.append(rows.sum())
        return torch.stack(losses).sum() / torch.stack(counts).sum().clamp(min=1)


class PretrainTasks(nn.Module):
    """The factory with everything that pretraining alone needs."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.factory = factory = recommender.factory
        self.norm, self.outcome_head = recommender.decoder.norm, recommender.outcome
        d_model = recommender.config.model.d_model
        self.id_dropout = recommender.config.training.id_dropout
        self.heads = nn.ModuleDict(
            {
                name: SignalHeads(maker.signals, recommender.vocabulary, d_in=maker.n_tokens * d_model)
                for name, maker in makers(factory).items()
            }
        )
        self.next_item = nn.Linear(d_model, d_model)

    def masked(
        self, corpus: Corpus, rows: dict[str, np.ndarray], *, ratio: float, generator: torch.Generator
    ) -> Tensor:
        """Masked-signal prediction, summed over the makers."""
        losses = []
        for name, maker in makers(self.factory).items():
            signals = columns(corpus)[name].take(rows[name])
            masked, is_masked_NM = maker.mask(signals, ratio=ratio, generator=generator)
            losses.append(self.heads[name](maker(masked), signals, is_masked_NM))
        return torch.stack([torch.zeros(()), *losses]).sum()

    def cooccurrence(self, corpus: Corpus, left: np.ndarray, right: np.ndarray, *, temperature: float) -> Tensor:
        """InfoNCE between the item vectors of two nearby events, the batch's other items being the negatives."""
        if not len(left):
            return torch.zeros(())
        left_PD, right_PD = (
            functional.normalize(self._items(corpus, corpus.event_row_E[events]), dim=-1) for events in (left, right)
        )
        same_PP = torch.as_tensor(corpus.event_row_E[right][:, None] == corpus.event_row_E[right][None, :])
        logits_PP = (left_PD @ right_PD.T) / temperature
        return _in_batch(logits_PP, same_PP)

    def from_tokens(self, corpus: Corpus, events: np.ndarray, n_before: np.ndarray) -> Tensor:
        """Predict each event's item from the decayed mean of the (up to eight) history tokens before it."""
        if not len(events):
            return torch.zeros(())
        back = np.arange(1, RECENT_EVENTS + 1)
        rows = (events[:, None] - back).clip(0)
        weight = torch.as_tensor(np.where(back <= n_before[:, None], DECAY**back, 0.0)).float().unsqueeze(-1)
        flat = rows.ravel()
        tokens_ND = self.factory.history_tokens(
            torch.as_tensor(corpus.event_identity_E[flat]), corpus.history_E.take(flat)
        ).mean(1)
        mean_PD = (tokens_ND.view(*rows.shape, -1) * weight).sum(1) / weight.sum(1).clamp(min=1e-6)
        target = corpus.event_row_E[events]
        logits_PP = self.next_item(mean_PD) @ self._items(corpus, target).T
        return _in_batch(logits_PP, torch.as_tensor(target[:, None] == target[None, :]))

    def outcome(self, corpus: Corpus, candidates: np.ndarray, generator: torch.Generator) -> Tensor:
        """Log loss of candidates' outcomes, read off the last of their tokens; 0 where there are no candidates."""
        if not len(candidates):
            return torch.zeros(())
        identity_N = torch.as_tensor(corpus.candidate_identity_C[candidates])
        identity_N = forget_identities(identity_N, share=self.id_dropout, generator=generator)
        context = self.factory.context_of_candidates(corpus, candidates)
        tokens_NKD = self.factory.candidate_tokens(identity_N, corpus.candidate_C.take(candidates), context)
        logit_N = self.outcome_head(self.norm(tokens_NKD[:, -1])).squeeze(-1)
        return functional.binary_cross_entropy_with_logits(logit_N, torch.as_tensor(corpus.label_C[candidates]))

    def _items(self, corpus: Corpus, rows: np.ndarray) -> Tensor:
        return self.factory.item_vectors(torch.as_tensor(corpus.item_identity_V[rows]), corpus.content_V.take(rows))


def makers(factory: TokenFactory) -> dict[str, PretrainableMaker]:
    """Return the factory's makers that can be pretrained, by the group they make the tokens of."""
    named = {name: getattr(factory, name) for name in ("history", "query", "candidate", "content")}
    offered = {name: maker for name, maker in named.items() if isinstance(maker, PretrainableMaker)}
    return {name: maker for name, maker in offered.items() if maker.pretrainable}


def columns(corpus: Corpus) -> dict[str, SignalArrays]:
    """The table that each maker reads."""
    return {
        "history": corpus.history_E,
        "query": corpus.query_R,
        "candidate": corpus.candidate_C,
        "content": corpus.content_V,
    }


def training_rows(corpus: Corpus) -> dict[str, np.ndarray]:
    """The rows of each table that belong to the training split (the catalogue is known to all)."""
    is_train_R = corpus.split_R == 0
    return {
        "history": np.flatnonzero(corpus.event_is_train_E),
        "query": np.flatnonzero(is_train_R),
        "candidate": np.flatnonzero(np.repeat(is_train_R, np.diff(corpus.candidate_offset_R))),
        "content": np.arange(len(corpus.item_ids)),
    }


def pretrain(recommender: Recommender, corpus: Corpus, *, seed: int) -> dict[str, list[list[float]]]:
    """Train the recommender's factory in place, and the head of outcomes; returns the curve of each loss."""
    config = recommender.config.pretrain
    if config.steps == 0:
        return {}
    tasks = PretrainTasks(recommender)
    schedule = TrainingConfig(learning_rate=config.learning_rate, warmup_steps=max(1, config.steps // 20))
    optimizer = make_optimizer(tasks, schedule)
    rows, n_before = training_rows(corpus), _events_before(corpus)
    candidates = _once(rows["candidate"], config.batch_rows, n_parts=config.steps, seed=seed)
    curves: dict[str, list[list[float]]] = {}
    for at in progress(range(config.steps), what="pretrain the token factory", total=config.steps, unit="step"):
        rng, generator = np.random.default_rng((seed, at)), seeded(seed * 1_000_003 + at)
        chosen = {name: _sample(table, config.signal_rows, rng) for name, table in rows.items()}
        later = _sample(rows["history"][n_before[rows["history"]] > 0], config.signal_rows, rng)
        earlier = later - rng.integers(1, np.minimum(PAIR_REACH, n_before[later]) + 1)
        losses = {
            "masked_signals": tasks.masked(corpus, chosen, ratio=config.mask_ratio, generator=generator),
            "cooccurrence": tasks.cooccurrence(corpus, earlier, later, temperature=config.temperature),
            "next_item": tasks.from_tokens(corpus, later, n_before[later]),
            "outcome": tasks.outcome(corpus, candidates[at], generator),
        }
        total = torch.stack(list(losses.values())).sum() + (config.outcome_weight - 1) * losses["outcome"]
        rate = learning_rate(at, total_steps=config.steps, config=schedule)
        step(tasks, optimizer, total, rate=rate, clip=1.0, where=f"pretraining step {at}")
        for name, loss in losses.items():
            curves.setdefault(f"pretrain/{name}", []).append([at, round(loss.item(), 6)])
    return curves


def _in_batch(logits_PP: Tensor, same_PP: Tensor) -> Tensor:
    """Cross-entropy of the diagonal against the other columns, repeats of the same item left out."""
    is_other_PP = same_PP & ~torch.eye(len(same_PP), dtype=torch.bool)
    return functional.cross_entropy(logits_PP.masked_fill(is_other_PP, float("-inf")), torch.arange(len(logits_PP)))


def _sample(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return (
        rng.choice(rows, min(n, len(rows)), replace=False) if len(rows) < 4 * n else rows[rng.integers(0, len(rows), n)]
    )


def _once(rows: np.ndarray, n: int, *, n_parts: int, seed: int) -> list[np.ndarray]:
    """Parts of at most `n` rows in drawn order, no row in two of them: what is seen once cannot be learned by heart."""
    mixed = np.random.default_rng((seed, 0)).permutation(rows)
    return np.array_split(mixed[: n * n_parts], n_parts)


def _events_before(corpus: Corpus) -> np.ndarray:
    """(E,) how many events of the same user stand before each event."""
    counts = np.diff(corpus.user_offset_U)
    before: np.ndarray = np.arange(len(corpus.event_row_E)) - np.repeat(corpus.user_offset_U[:-1], counts)
    return before
