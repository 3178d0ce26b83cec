"""Variant `text`: signals as text, which soft tokens are compared with.

Every signal takes a fixed number of hard tokens: its name, then its value. A dense number is written with its sign,
three significant digits and a power of ten (so six tokens in all); a category by its words, three at most; a bag by the
words of its members; a vector number by number. A missing value is one word of its own. The vocabulary is shared by all
signals of a group: names, digits, powers and words.

Shape suffixes: N rows, L tokens, F dense signals, W words of a category, P members of a bag, V numbers of a vector,
D token width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrm.config import SOFT, TEXT, TokensConfig
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.tokens.signals import SignalTensors, of_kind
from lrm.tokens.vocabulary import FIRST_CATEGORY, MISSING, Vocabulary

PAD, NULL, UNKNOWN_WORD, PLUS, MINUS, DIGIT = range(6)
"""Token ids; `DIGIT` is that of 0, nine more follow."""
POWER = DIGIT + 10
"""Token id of the smallest power of ten."""
MAX_POWER = 9
FIRST_WORD = POWER + 2 * MAX_POWER + 1
N_DIGITS = 3
NUMBER_TOKENS = 1 + N_DIGITS + 1
MAX_WORDS = 3


class TextMaker(nn.Module):
    """A group's signals as hard tokens, behind one opening token that stands for the group.

    Shape:
        signals: N rows.
        returns: (N, L, D) float32; L is `n_tokens`.
    """

    scale_F2: Tensor

    def __init__(self, signals: Sequence[Signal], vocabulary: Vocabulary, *, d_model: int) -> None:
        super().__init__()
        self.signals = tuple(signals)
        self.numbers, self.vectors = of_kind(signals, DENSE), of_kind(signals, EMBEDDING)
        ordered = [signal for kind in (DENSE, SPARSE, BAG, EMBEDDING) for signal in of_kind(signals, kind)]
        self.name = {signal.name: FIRST_WORD + i for i, signal in enumerate(ordered)}
        worded = [*of_kind(signals, SPARSE), *of_kind(signals, BAG)]
        words = sorted(
            {word for signal in worded for name in vocabulary.categories[signal.name] for word in _words(name)}
        )
        self.word = {word: FIRST_WORD + len(ordered) + i for i, word in enumerate(words)}
        for signal in worded:
            self.register_buffer(_buffer(signal), self._written(vocabulary.categories[signal.name]), persistent=False)
        scales = [vocabulary.scales[signal.name] for signal in self.numbers]
        self.register_buffer("scale_F2", torch.tensor(scales).view(-1, 2), persistent=False)
        self.opening_D = nn.Parameter(torch.randn(d_model) * 0.02)
        self.table = nn.Embedding(FIRST_WORD + len(ordered) + len(words), d_model)
        nn.init.normal_(self.table.weight, std=0.05)
        self.n_tokens = 1 + sum(self._length(signal, vocabulary) for signal in ordered)

    def _written(self, categories: Sequence[str]) -> Tensor:
        """(n_categories, W) the words of each category."""
        width = max((len(_words(name)) for name in categories), default=1)
        written = torch.full((FIRST_CATEGORY + len(categories) + 1, max(1, width)), PAD, dtype=torch.int32)
        written[:FIRST_CATEGORY, 0] = torch.tensor([NULL, UNKNOWN_WORD])
        for row, name in enumerate(categories, FIRST_CATEGORY):
            written[row, : len(_words(name))] = torch.tensor([self.word[word] for word in _words(name)])
        return written

    def _length(self, signal: Signal, vocabulary: Vocabulary) -> int:
        if signal.kind == DENSE:
            return 1 + NUMBER_TOKENS
        if signal.kind == EMBEDDING:
            return 1 + (signal.dim or 0) * NUMBER_TOKENS
        n_members = vocabulary.bag_widths[signal.name] if signal.kind == BAG else 1
        return 1 + n_members * int(getattr(self, _buffer(signal)).shape[1])

    def write(self, signals: SignalTensors) -> Tensor:
        """(N, L - 1) token ids of everything behind the opening token."""
        n_rows = len(signals.bucket_NF)
        raw_NF = _unscaled(signals.value_NF, self.scale_F2)
        dense_NFL = _spell(raw_NF, is_null=signals.bucket_NF == MISSING)
        parts = [(signal, dense_NFL[:, i]) for i, signal in enumerate(self.numbers)]
        words = zip(of_kind(self.signals, SPARSE), signals.sparse_NS.unbind(1), strict=True)
        bags = zip(of_kind(self.signals, BAG), signals.bags, strict=True)
        parts += [(signal, getattr(self, _buffer(signal))[index].flatten(1)) for signal, index in (*words, *bags)]
        for signal, vector_NV in zip(self.vectors, signals.embeddings, strict=True):
            spelled = _spell(vector_NV.nan_to_num(0.0), is_null=vector_NV.isnan())
            parts.append((signal, spelled.flatten(1)))
        named = [
            torch.cat([torch.full((n_rows, 1), self.name[signal.name], dtype=torch.int32), value.int()], dim=1)
            for signal, value in parts
        ]
        return torch.cat([torch.zeros(n_rows, 0, dtype=torch.int32), *named], dim=1)

    def forward(self, signals: SignalTensors) -> Tensor:
        """Make the tokens."""
        text_NLD = self.table(self.write(signals))
        return torch.cat([self.opening_D.expand(len(text_NLD), 1, -1), text_NLD], dim=1)


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> TextMaker:
    """Make the maker of one group; it takes as many tokens as its text needs."""
    return TextMaker(signals, vocabulary, d_model=d_model)


def event_variant(config: TokensConfig) -> str:
    """Return the variant of events and item content: text, or soft tokens where `text_events` is off."""
    return TEXT if config.text_events else SOFT


def _words(category: str) -> list[str]:
    return category.replace("/", " ").replace("-", " ").split()[:MAX_WORDS]


def _buffer(signal: Signal) -> str:
    return f"words_of_{signal.name}"


def _unscaled(value_NF: Tensor, scale_F2: Tensor) -> Tensor:
    """The numbers behind standard scores of signed logarithms."""
    logs_NF = value_NF * scale_F2[:, 1] + scale_F2[:, 0]
    return logs_NF.sign() * torch.expm1(logs_NF.abs())


def _spell(number_NF: Tensor, *, is_null: Tensor) -> Tensor:
    """(N, F, NUMBER_TOKENS): sign, significant digits, power of ten."""
    size_NF = number_NF.abs().double()
    power_NF = size_NF.clamp(min=10.0**-MAX_POWER).log10().floor()
    mantissa_NF = (size_NF / 10.0 ** (power_NF - N_DIGITS + 1)).round()
    overflows_NF = mantissa_NF >= 10**N_DIGITS  # 9.996 is written 1.00e1
    mantissa_NF, power_NF = torch.where(overflows_NF, mantissa_NF / 10, mantissa_NF), power_NF + overflows_NF
    power_NF = torch.where(mantissa_NF == 0, 0.0, power_NF.clamp(max=MAX_POWER))
    digits = [(mantissa_NF // 10**place) % 10 + DIGIT for place in reversed(range(N_DIGITS))]
    sign_NF = torch.where(number_NF < 0, MINUS, PLUS)
    spelled_NFL = torch.stack([sign_NF, *digits, power_NF + MAX_POWER + POWER], dim=-1).long()
    null_L = torch.full((NUMBER_TOKENS,), PAD)
    null_L[0] = NULL
    return torch.where(is_null.unsqueeze(-1), null_L, spelled_NFL)
