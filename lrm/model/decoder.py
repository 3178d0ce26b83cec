"""The decoder: a stack of blocks over prompts in flat form.

Shape suffixes: N flat tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from lrm.config import ModelConfig
from lrm.model.blocks import Block, Kept, PackedBlock, block_part
from lrm.model.cpu_kernels import Dropout, RmsNorm
from lrm.model.flex_attention import compiled, padded_size
from lrm.tokens.layout import Layout

Decode = Callable[[Tensor, Layout, Sequence[Kept]], Tensor]
"""Makes states (N, D) of query and candidate tokens (N, D), given what each layer kept of the histories before them."""


class Decoder(nn.Module):
    """A stem where the block has one, a stack of blocks, and a final norm."""

    def __init__(self, config: ModelConfig, *, n_positions: int) -> None:
        super().__init__()
        part = block_part(config)
        self.dropout = Dropout(config.dropout)
        self.stem: nn.Module | None = part.Stem(config, n_positions=n_positions) if hasattr(part, "Stem") else None
        self.blocks = nn.ModuleList(part.Block(config, **config.block_options) for _ in range(config.n_layers))
        self.norm = RmsNorm(config.d_model)
        self._is_packed = self.offers(PackedBlock)

    def offers(self, protocol: type) -> bool:
        """Return whether the blocks make an offer of `lrm.model.blocks`; the forms for serving have no stem."""
        return isinstance(self.blocks[0], protocol) and (self.stem is None or protocol is PackedBlock)

    def forward(self, x_ND: Tensor, layout: Layout, past: Sequence[Kept] | None = None) -> tuple[Tensor, list[Kept]]:
        """Map tokens (N, D) to states (N, D), and return what each layer keeps of the history.

        Where a step trains on a GPU over packed tokens, nothing is kept.

        Args:
            x_ND: the tokens, in the order of the layout; without those of the history where `past` is given.
            layout: of all tokens.
            past: what each layer returned of the history in an earlier call.
        """
        first = cast(Block, self.blocks[0])
        if past is None and self._is_packed and cast(PackedBlock, first).can_pack(x_ND):
            return self.packed(x_ND, layout, compiled(cast(type[PackedBlock], type(first)).packed)), []
        prepared = first.prepare(layout, len(x_ND))
        x_ND, kept = self._entered(x_ND, layout), []
        for layer, block in enumerate(self.blocks):
            x_ND, history = block(x_ND, layout, prepared, past[layer] if past else None)
            kept.append(history)
        states_ND: Tensor = self.norm(x_ND)
        return states_ND, kept

    def packed(self, x_ND: Tensor, layout: Layout, layer: Callable[..., Tensor]) -> Tensor:
        """Return the states of whole prompts, no segment padded.

        Args:
            x_ND: all tokens.
            layout: of all tokens.
            layer: the blocks' method `packed`, or what it was compiled to.
        """
        prepared, n_tokens = cast(PackedBlock, self.blocks[0]).prepare_packed(layout), len(x_ND)
        x_ND = functional.pad(self._entered(x_ND, layout), (0, 0, 0, padded_size(n_tokens) - n_tokens))
        for block in self.blocks:
            x_ND = layer(block, x_ND, *prepared)
        states_ND: Tensor = self.norm(x_ND[:n_tokens])
        return states_ND

    def _entered(self, x_ND: Tensor, layout: Layout) -> Tensor:
        if self.stem is not None:
            x_ND = self.stem(x_ND, layout)
        dropped_ND: Tensor = self.dropout(x_ND)
        return dropped_ND
