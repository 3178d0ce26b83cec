"""Variant `soft`: signals to soft tokens (Token Factory, 2606.19635, section 3).

Each signal `f_i` gets its own embedding `t_i(f_i)`; all are concatenated and mixed into a fixed number of tokens by a
small network `G`.

Shape suffixes: N rows, F dense signals, S sparse signals, P places of a bag, W width of one signal's embedding,
M all signals of the maker, K soft tokens, D token width, H hidden width of G.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrm.config import TokensConfig
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.tokens.signals import SignalTensors, of_kind
from lrm.tokens.vocabulary import MISSING, Vocabulary


class DenseEmbedding(nn.Module):
    """A number as the embedding of its quantile bucket plus the number itself along a learned direction.

    Bucket 0 is "missing" and the last one is "masked", so absent, hidden and zero are three different things. The value
    leads at first: what a bucket adds has to be learned, else little data are learned by heart.

    Shape:
        bucket_NF: (N, F) integers; value_NF: (N, F) float32.
        returns: (N, F, W).
    """

    offset_F: Tensor

    def __init__(self, *, n_signals: int, n_buckets: int, width: int) -> None:
        super().__init__()
        self.masked = n_buckets + 1
        self.table = nn.Embedding(n_signals * (n_buckets + 2), width)
        nn.init.normal_(self.table.weight, std=0.05)
        self.slope_FW = nn.Parameter(torch.randn(n_signals, width) * 0.3)
        self.register_buffer("offset_F", torch.arange(n_signals) * (n_buckets + 2), persistent=False)

    def forward(self, bucket_NF: Tensor, value_NF: Tensor) -> Tensor:
        """Embed."""
        embedded_NFW: Tensor = self.table(bucket_NF + self.offset_F)
        return embedded_NFW + value_NF.unsqueeze(-1) * self.slope_FW


class SparseEmbedding(nn.Module):
    """Categories of several signals from one stacked table.

    Shape:
        sparse_NS: (N, S) integers.
        returns: (N, S, W).
    """

    offset_S: Tensor
    masked_S: Tensor

    def __init__(self, *, n_categories: Sequence[int], width: int) -> None:
        super().__init__()
        sizes = torch.tensor(n_categories, dtype=torch.long)
        self.table = nn.Embedding(int(sizes.sum()), width)
        self.register_buffer("offset_S", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("masked_S", sizes - 1, persistent=False)

    def forward(self, sparse_NS: Tensor) -> Tensor:
        """Embed."""
        embedded_NSW: Tensor = self.table(sparse_NS + self.offset_S)
        return embedded_NSW


class BagEmbedding(nn.Module):
    """The mean embedding of a bag's members; an empty or missing bag takes the row of "missing".

    Shape:
        bag_NP: (N, P) integers, 0 where there is no member.
        returns: (N, W).
    """

    def __init__(self, *, n_categories: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_categories, width)

    def forward(self, bag_NP: Tensor) -> Tensor:
        """Embed."""
        is_member_NP1 = (bag_NP != MISSING).unsqueeze(-1)
        total_NW = (self.table(bag_NP) * is_member_NP1).sum(1)
        count_N1 = is_member_NP1.sum(1)
        return torch.where(count_N1 > 0, total_NW / count_N1.clamp(min=1), self.table.weight[MISSING])


class SequenceEmbedding(nn.Module):
    """Attention over an ordered bag: a member counts by what it is and by how many came after it.

    Shape:
        bag_NP: (N, P) integers, the latest first, 0 where there is no member.
        returns: (N, W); the row of "missing" for an empty one.
    """

    def __init__(self, *, n_categories: int, n_places: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_categories, width)
        self.recency_PW = nn.Parameter(torch.randn(n_places, width) * 0.1)
        self.score = nn.Linear(width, 1)

    def forward(self, bag_NP: Tensor) -> Tensor:
        """Embed."""
        is_member_NP1 = (bag_NP != MISSING).unsqueeze(-1)
        member_NPW = self.table(bag_NP) + self.recency_PW
        score_NP1 = self.score(member_NPW)
        score_NP1 = score_NP1.masked_fill(~is_member_NP1, torch.finfo(score_NP1.dtype).min)
        pooled_NW = (score_NP1.softmax(1) * member_NPW * is_member_NP1).sum(1)
        return torch.where(is_member_NP1.any(1), pooled_NW, self.table.weight[MISSING])


class VectorEmbedding(nn.Module):
    """A precomputed vector through a linear map; a missing one takes a learned value.

    Shape:
        vector_NV: (N, V) float32, NaN where missing.
        returns: (N, W).
    """

    def __init__(self, *, dim: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, width)
        self.missing_W = nn.Parameter(torch.randn(width) * 0.1)

    def forward(self, vector_NV: Tensor) -> Tensor:
        """Embed."""
        is_missing_N1 = vector_NV.isnan().any(-1, keepdim=True)
        return torch.where(is_missing_N1, self.missing_W, self.map(vector_NV.nan_to_num(0.0)))


class SoftMaker(nn.Module):
    """All signals of one group to `n_tokens` soft tokens. A group without signals gets learned constant tokens.

    Shape:
        signals: N rows.
        returns: (N, K, D) float32.
    """

    def __init__(
        self, signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
    ) -> None:
        super().__init__()
        self.signals = tuple(signals)
        self.n_tokens = n_tokens
        width, n_dense = config.width, len(of_kind(signals, DENSE))
        self.dense = DenseEmbedding(n_signals=n_dense, n_buckets=config.n_buckets, width=width)
        self.sparse_sizes = [vocabulary.n_categories(signal) for signal in of_kind(signals, SPARSE)]
        self.sparse = SparseEmbedding(n_categories=self.sparse_sizes, width=width)
        self.bag_sizes = [vocabulary.n_categories(signal) for signal in of_kind(signals, BAG)]
        self.bags = nn.ModuleList(
            SequenceEmbedding(
                n_categories=vocabulary.n_categories(bag), n_places=vocabulary.bag_widths[bag.name], width=width
            )
            if bag.ordered
            else BagEmbedding(n_categories=vocabulary.n_categories(bag), width=width)
            for bag in of_kind(signals, BAG)
        )
        self.vectors = nn.ModuleList(
            VectorEmbedding(dim=signal.dim or 0, width=width) for signal in of_kind(signals, EMBEDDING)
        )
        self.constant_KD = nn.Parameter(torch.randn(n_tokens, d_model) * 0.02)
        self.n_inputs = n_inputs = len(signals) * width
        # few signals need no wide layer, and a wide model has many events
        self.n_hidden = n_hidden = min(2 * d_model, 4 * n_inputs)
        self.network = (
            nn.Sequential(nn.Linear(n_inputs, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_tokens * d_model))
            if signals
            else None
        )

    def embed(self, signals: SignalTensors) -> Tensor:
        """`concat(t_i(f_i))` as (N, M, W): dense signals first, then sparse, bags, embeddings."""
        parts = [self.dense(signals.bucket_NF, signals.value_NF)] if signals.bucket_NF.shape[1] else []
        parts += [self.sparse(signals.sparse_NS)] if self.sparse_sizes else []
        parts += [bag(values).unsqueeze(1) for bag, values in zip(self.bags, signals.bags, strict=True)]
        parts += [vector(values).unsqueeze(1) for vector, values in zip(self.vectors, signals.embeddings, strict=True)]
        return torch.cat(parts, dim=1)

    def forward(self, signals: SignalTensors) -> Tensor:
        """Make the tokens."""
        if self.network is None:
            return self.constant_KD.expand(len(signals.bucket_NF), -1, -1)
        return self.mix(self.embed(signals))

    def mix(self, embedded_NMW: Tensor, query_NH: Tensor | None = None) -> Tensor:
        """Return the tokens (N, K, D) of embedded signals; for a maker that reads some.

        Args:
            embedded_NMW: as `embed` returns it.
            query_NH: added before the activation of the hidden layer: what the signals of the request contribute.
        """
        assert self.network is not None, "the maker has signals"
        first, activation, last = self.network
        hidden_NH = first(embedded_NMW.flatten(1))
        mixed_ND: Tensor = last(activation(hidden_NH if query_NH is None else hidden_NH + query_NH))
        return mixed_ND.view(len(mixed_ND), *self.constant_KD.shape) + self.constant_KD

    @property
    def pretrainable(self) -> bool:
        """Whether it reads a signal, and its weights may move."""
        return bool(self.signals) and self.constant_KD.requires_grad

    def mask(self, signals: SignalTensors, *, ratio: float, generator: torch.Generator) -> tuple[SignalTensors, Tensor]:
        """Mask about `ratio` of the values; returns the masked signals and which values are masked, (N, M)."""
        n_rows, n_signals = len(signals.bucket_NF), len(self.signals)
        is_masked_NM = torch.rand(n_rows, n_signals, generator=generator) < ratio
        n_dense, n_sparse = signals.bucket_NF.shape[1], signals.sparse_NS.shape[1]
        dense_NF, sparse_NS, rest = is_masked_NM.tensor_split((n_dense, n_dense + n_sparse), dim=1)
        bag_N, vector_N = rest[:, : len(self.bags)].unbind(1), rest[:, len(self.bags) :].unbind(1)
        masked = SignalTensors(
            signals.bucket_NF.masked_fill(dense_NF, self.dense.masked),
            signals.value_NF.masked_fill(dense_NF, 0.0),
            torch.where(sparse_NS, self.sparse.masked_S.to(signals.sparse_NS.dtype), signals.sparse_NS),
            tuple(
                torch.where(is_masked.unsqueeze(1), _bags_of(values, size - 1), values)
                for size, values, is_masked in zip(self.bag_sizes, signals.bags, bag_N, strict=True)
            ),
            tuple(
                values.masked_fill(is_masked.unsqueeze(1), float("nan"))
                for values, is_masked in zip(signals.embeddings, vector_N, strict=True)
            ),
        )
        return masked, is_masked_NM


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> SoftMaker:
    """Make the maker of one group."""
    return SoftMaker(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model)


def _bags_of(bag_NP: Tensor, category: int) -> Tensor:
    """Return bags that hold one given category each."""
    single_NP = torch.zeros_like(bag_NP)
    single_NP[:, 0] = category
    return single_NP
