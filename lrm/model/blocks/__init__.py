"""Blocks: the layers of the decoder, one file each; `ModelConfig.block` names the file.

A part of this folder is a module with these names:

- `Block(config, **options)`, an `nn.Module` with the methods of the protocol `Block` below. The decoder makes
  `n_layers` of them. `config` is the `ModelConfig`, `options` are its `block_options`; an option is a keyword-only
  argument of `Block`.
- `Stem(config, n_positions)`, which a module may leave out: an `nn.Module` that maps `(x_ND, layout)` to `x_ND` before
  the first layer. A block that adds learned positions to its input does it there.
- `TELLS_NEXT_TIME`, which a module may leave out: True where an event's token reads when the *next* event happens, as
  in HSTU. What a layer keeps of the latest event would then depend on the future. So each request reads that event
  again, at its own time, and sees only the events before it in the history (`PromptShape.reread_events`). Nothing
  leaks, and training at events and asking at requests are the same computation.

The other protocols are offers that a block may make. Where a block does not make one, the decoder runs by torch's plain
path. Offers are asked by protocol and never by type, so a block of another package can make them too.

This file imports no torch, so that a command line can list the blocks quickly.

Shape suffixes: N flat tokens, D model width, G requests, S query and candidate tokens of a request, V visible places.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from lrm.parts import check_options, part

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lrm.config import ModelConfig
    from lrm.model.onnx_ops import OnnxOp
    from lrm.tokens.layout import Layout

PACKAGE = __name__
Kept: TypeAlias = "tuple[Tensor, ...]"
"""What one layer keeps of a history for later calls: tensors with one row for each history token (axis 0)."""


class Block(Protocol):
    """One layer of the decoder."""

    def prepare(self, layout: Layout, n_tokens: int) -> Any:
        """Work out what all layers need of a layout; the first layer does it once in a pass.

        Args:
            layout: of all tokens.
            n_tokens: the last of them, which this pass reads; the others were read in an earlier one.
        """

    def __call__(self, x_ND: Tensor, layout: Layout, prepared: Any, past: Kept | None) -> tuple[Tensor, Kept]:
        """Map tokens (N, D) to tokens (N, D), and return what later calls need of the history.

        A token takes from those that it sees (`lrm.tokens.visibility`) and from no other.

        Args:
            x_ND: memory and event tokens, then query tokens, then candidate tokens. Where `past` is given, the memory
                and event tokens are left out.
            layout: of all tokens.
            prepared: what `prepare` returned.
            past: what this layer returned of the history in an earlier call.
        """


@runtime_checkable
class PackedBlock(Protocol):
    """An offer: to train on a GPU over the flat tokens, where no segment is padded."""

    def can_pack(self, x_ND: Tensor) -> bool:
        """Whether it can do so here and now."""

    def prepare_packed(self, layout: Layout) -> tuple[Any, ...]:
        """Work out what all layers need of a layout whose tokens are padded to `flex_attention.padded_size`."""

    def packed(self, x_ND: Tensor, *prepared: Any) -> Tensor:
        """Map tokens (N, D) to tokens (N, D), those that fill up the size included."""


@runtime_checkable
class FixedSizeBlock(Protocol):
    """An offer: to decode over kept histories in tensors of fixed shapes, which can be captured as a CUDA graph."""

    def kept_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shape of one token's row in each tensor of `Kept`."""

    def prepare_fixed(self, position_N: Tensor) -> Any:
        """Work out what all layers need of the positions (N,) of query and candidate tokens."""

    def fixed(self, x_ND: Tensor, prepared: Any, past: Kept, sees_GSV: Tensor) -> Tensor:
        """Map query and candidate tokens (G * S, D) to the same shape.

        Args:
            x_ND: as many for each request.
            prepared: what `prepare_fixed` returned.
            past: as many history tokens for each request.
            sees_GSV: whether a token sees a history token of its request, then a token of `x_ND`.
        """


@runtime_checkable
class OnnxBlock(Protocol):
    """An offer: to be written down as ONNX operators, for decoding over kept histories on a processor."""

    def kept_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shape of one token's row in each tensor of `Kept`."""

    def onnx_inputs(self) -> Mapping[str, tuple[int | str, ...]]:
        """Return name and shape of the float inputs that it needs beside those of `lrm.model.onnx_graph`."""

    def onnx_feed(self, layout: Layout, n_tokens: int, bias_GSV: np.ndarray) -> dict[str, np.ndarray]:
        """Return those inputs for a layout.

        Args:
            layout: of all tokens.
            n_tokens: query and candidate tokens.
            bias_GSV: 0 where a token sees the prefix or its own candidate, else minus infinity.
        """

    def onnx_nodes(self, op: OnnxOp, x_ND: str, layer: int, per_candidate: int) -> str:
        """Add the operators of this layer, and return the name of its output."""


def block_part(config: ModelConfig) -> ModuleType:
    """Import the module of the block that a configuration names.

    Raises:
        ConfigError: no such block is installed, or it does not have one of the options.
    """
    module = part(PACKAGE, config.block)
    check_options(f"the block {config.block!r}", module.Block, config.block_options)
    return module


def tells_next_time(config: ModelConfig) -> bool:
    """Return whether the block of a configuration reads the time of the next event at each event."""
    return bool(getattr(block_part(config), "TELLS_NEXT_TIME", False))
