"""The codes of items: fitted to the training catalogue, kept with the model, and given to items that come later.

Items that share all codes of the levels get a further running index as their last code; where no index is left, an item
takes the nearest codes that have one. So no two items are alike.

Shape suffixes: N items or identities, V items of a catalogue, L codes of an item with its index, K codes of a level,
W width of a vector, D model width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lrm.errors import ConfigError
from lrm.model.heads._residual_kmeans import codes_of

NO_CODE = -1


def scaled_codes(n_items: int) -> int:
    """Codes of a level that suit a catalogue: a power of two from 4 to 256."""
    return int(np.clip(2 ** int(np.ceil(np.log2(max(4.0, np.sqrt(2.5 * n_items))))), 4, 256))


class CodeNames(nn.Module):
    """Names items in prompts by the sum of their codes' embeddings; items without codes share a vector of their own.

    Shape:
        identity_N: (N,) identity rows.
        returns: (N, D).
    """

    def __init__(self, *, n_identities: int, sizes: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        self.unknown_D = nn.Parameter(torch.randn(d_model) * 0.05)
        self.table = nn.Embedding(sum(sizes), d_model)
        nn.init.normal_(self.table.weight, std=0.05)
        self.code_NL: Tensor
        self.register_buffer("code_NL", torch.full((n_identities, len(sizes)), NO_CODE))
        offset_L = torch.tensor([0, *np.cumsum(sizes)[:-1].tolist()])
        self.offset_L: Tensor
        self.register_buffer("offset_L", offset_L, persistent=False)

    def forward(self, identity_N: Tensor) -> Tensor:
        """Name items."""
        code_NL = self.code_NL[identity_N]
        is_unknown_N1 = code_NL[:, :1] < 0
        named_ND: Tensor = self.table(code_NL.clamp(min=0) + self.offset_L).sum(1)
        return torch.where(is_unknown_N1, self.unknown_D.to(named_ND.dtype), named_ND)


def with_index(
    vector_NW: np.ndarray, codebook_LKW: np.ndarray, *, n_indices: int, used: Counter[tuple[int, ...]]
) -> np.ndarray:
    """(N, L) the codes of items and their running index, in the order of the items.

    Args:
        vector_NW: what is coded.
        codebook_LKW: the centres.
        n_indices: items that may share the codes of the levels.
        used: how many items have these codes already; counted on.

    Raises:
        ConfigError: there are more items than names.
    """
    named = []
    for vector_W, code in zip(vector_NW, codes_of(vector_NW, codebook_LKW).tolist(), strict=True):
        key = tuple(code)
        if used[key] >= n_indices:
            free = (other for other in _nearest(vector_W, codebook_LKW) if used[other] < n_indices)
            key = next(free, ())
            if not key:
                raise ConfigError("there are more items than codes; raise head_options codes or levels in the preset")
        named.append((*key, used[key]))
        used[key] += 1
    return np.array(named, dtype=np.int64).reshape(len(named), len(codebook_LKW) + 1)


def used_codes(code_VL: np.ndarray) -> Counter[tuple[int, ...]]:
    """How many items have the codes of the levels, from the codes with index of coded items."""
    return Counter(tuple(code) for code in code_VL[:, :-1].tolist())


def health(code_VL: np.ndarray, n_codes: int) -> dict[str, float]:
    """How well codes tell items apart.

    Args:
        code_VL: of coded items.
        n_codes: of a level.

    Returns:
        Of each level the share of codes that are used (`codes_used_1`, ...) and their perplexity (`code_perplexity_1`,
        ...), and `code_collisions`, the share of items that share the codes of all levels with another item.
    """
    found = {}
    for level, code_V in enumerate(code_VL[:, :-1].T, start=1):
        share_K = np.bincount(code_V, minlength=n_codes) / max(1, len(code_V))
        used_K = share_K[share_K > 0]
        found[f"codes_used_{level}"] = round(len(used_K) / n_codes, 4)
        found[f"code_perplexity_{level}"] = round(float(np.exp(-(used_K * np.log(used_K)).sum())), 2)
    shared = sum(count for count in used_codes(code_VL).values() if count > 1)
    return found | {"code_collisions": round(shared / max(1, len(code_VL)), 4)}


def _nearest(vector_W: np.ndarray, codebook_LKW: np.ndarray) -> Iterator[tuple[int, ...]]:
    """All codes of the levels, the nearest of each level first."""
    if not len(codebook_LKW):
        yield ()
        return
    residual_KW = vector_W - codebook_LKW[0]
    for code in np.argsort((residual_KW**2).sum(1), kind="stable").tolist():
        for rest in _nearest(residual_KW[code], codebook_LKW[1:]):
            yield (code, *rest)
