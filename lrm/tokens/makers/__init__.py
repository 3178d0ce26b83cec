"""Token makers: each module of this folder is one, and `TokensConfig.variant` names it.

A variant says how the signals of a group (history, query, candidate, content) reach the prompt; the decoder, the
batches and the seeds stay the same.

| variant | a group's tokens |
|---|---|
| `soft` | soft tokens of all its signals (the default) |
| `text` | every signal as text |
| `hybrid` | numbers as soft tokens, categories as text; events stay soft |
| `none` | learned constants: ids only |
| `noise` | control: noise instead of every signal's embedding, fresh in training |
| `frozen` | control: the makers keep their random weights; the signals are true |
| `shuffled` | control: as `soft`, with the signals exchanged between similar users and similar items |
| `constant` | control: the network of `soft` on inputs that are all missing |

A control has the shape and the cost of `soft`. `shuffled` is the main control: it has the same factory and the same
distribution of every signal, and no information about the row that a signal belongs to.

A part of this folder is a module with these names:

- `make(signals, vocabulary, config, *, n_tokens, d_model, **options)` returns an `nn.Module` with the attributes of the
  protocol `Maker` below. `options` are `TokensConfig.variant_options`; an option is a keyword-only argument of `make`.
- `event_variant(config)`, which a module may leave out: the name of the variant that makes the tokens of events and of
  item content.
- `change_corpus(corpus, vocabulary)`, which a module may leave out: returns the corpus that a model of this variant
  reads, for training and scoring. Such a model is a control and cannot be served.

The other protocols are offers that a maker may make. They are asked by protocol and never by type, so a maker of
another package can make them too.

This file imports no torch, so that a command line can list the variants quickly.

Shape suffixes: N rows, K tokens of a row, D token width, M signals of the maker, W width of one signal's embedding,
H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from lrm.parts import check_options, part

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lrm.config import TokensConfig
    from lrm.schema import Signal
    from lrm.tokens.corpus import Corpus
    from lrm.tokens.signals import SignalTensors
    from lrm.tokens.vocabulary import Vocabulary

PACKAGE = __name__


class Maker(Protocol):
    """Turns the signals of one group into tokens."""

    signals: tuple[Signal, ...]
    n_tokens: int
    """Tokens of one row: K."""

    def __call__(self, signals: SignalTensors) -> Tensor:
        """Return the tokens (N, K, D) of N rows."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters, as every `nn.Module` does."""


@runtime_checkable
class PretrainableMaker(Protocol):
    """An offer: to be pretrained by predicting masked signals from the tokens of the rest."""

    signals: tuple[Signal, ...]
    n_tokens: int

    @property
    def pretrainable(self) -> bool:
        """Whether pretraining can teach this maker anything: it reads a signal, and its weights may move."""

    def __call__(self, signals: SignalTensors) -> Tensor:
        """Return the tokens (N, K, D) of N rows."""

    def mask(self, signals: SignalTensors, *, ratio: float, generator: torch.Generator) -> tuple[SignalTensors, Tensor]:
        """Mask about `ratio` of the values.

        Returns:
            The masked signals, and which values are masked: (N, M) bool, dense signals first, then
            sparse, bags and embeddings.
        """


@runtime_checkable
class SharedEmbeddingMaker(Protocol):
    """An offer: to embed signals once for several uses. With it, candidates can read the signals of their request.

    Both makers must offer it: the query maker embeds a request once, and the candidate maker adds what it gets of that
    to its own hidden layer.
    """

    n_inputs: int
    """Numbers of one row's embedding, M * W; 0 without signals."""
    n_hidden: int
    """Width H of the hidden layer."""

    def embed(self, signals: SignalTensors) -> Tensor:
        """Return the embedding (N, M, W) of N rows."""

    def mix(self, embedded_NMW: Tensor, query_NH: Tensor | None = None) -> Tensor:
        """Return the tokens (N, K, D) of embedded rows; `query_NH` is added before the hidden layer's activation."""


def variant_part(config: TokensConfig) -> ModuleType:
    """Import the module of the variant that a configuration names.

    Raises:
        ConfigError: no such variant is installed, or it does not have one of the options.
    """
    module = part(PACKAGE, config.variant)
    check_options(f"the variant {config.variant!r}", module.make, config.variant_options)
    return module


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> Maker:
    """Make the maker of one group.

    Args:
        signals: of the group, in declared order.
        vocabulary: fitted on the training split.
        config: names the variant.
        n_tokens: soft tokens of one row. A maker of text has as many tokens as its text needs.
        d_model: token width.

    Raises:
        ConfigError: as of `variant_part`.
    """
    module = variant_part(config)
    made = module.make(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model, **config.variant_options)
    return cast(Maker, made)


def event_config(config: TokensConfig) -> TokensConfig:
    """Return the configuration of the makers of events and of item content."""
    module = variant_part(config)
    if not hasattr(module, "event_variant"):
        return config
    variant = module.event_variant(config)
    return config if variant == config.variant else replace(config, variant=variant, variant_options={})


def as_variant_sees(corpus: Corpus, config: TokensConfig, vocabulary: Vocabulary) -> Corpus:
    """Return the corpus that a model of this variant reads."""
    if not changes_corpus(config):
        return corpus
    return cast("Corpus", variant_part(config).change_corpus(corpus, vocabulary))


def changes_corpus(config: TokensConfig) -> bool:
    """Return whether the variant reads signals of other rows, so that no single request can be answered."""
    return hasattr(variant_part(config), "change_corpus")
