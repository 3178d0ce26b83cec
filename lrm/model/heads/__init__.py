"""Item heads: how an item is named in the prompt, and so how it is scored and found.

One file is one head. `lrm.parts` finds it by `ModelConfig.head`: its module offers `Head`, called as

    Head(design, **config.model.head_options)

and may offer `item_names`, called likewise, which makes the module that turns identity rows (N,) into vectors (N, D)
for prompts; without it each identity has a row of a table.

Everything that trains, judges or serves a model calls the interfaces of this file alone. A head need not be able to
score the whole catalogue: one that generates items finds the best ones, and an item that it does not find has no rank.

Shape suffixes: T events of the longest segment, E events of a batch, R requests, P predictions at events, Q predictions
at requests, V items of the catalogue, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lrm.config import RunConfig
from lrm.model.states import States
from lrm.schema import Signal
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import TokenFactory
from lrm.tokens.layout import Layout
from lrm.tokens.prompt import Batch
from lrm.tokens.vocabulary import Vocabulary

HEADS = "lrm.model.heads"
"""The folder of heads, and the group of entry points of those of other packages."""


class Design(NamedTuple):
    """What a head is built for."""

    config: RunConfig
    signals: tuple[Signal, ...]
    vocabulary: Vocabulary


class Wanted(NamedTuple):
    """What one request asks of the catalogue."""

    k: int
    only: np.ndarray | None = None
    """Catalogue rows to choose from; None: all."""
    without: np.ndarray | None = None
    """Catalogue rows that must not be shown."""


class Best(NamedTuple):
    """The best items of one request, best first; equal scores in the order of the catalogue."""

    rows: np.ndarray
    scores: np.ndarray


class Likelihood(Protocol):
    """What a head says of the targets of one step."""

    def next_item(self, states: States, events: np.ndarray, row_P: np.ndarray) -> Tensor:
        """The mean negative log-probability in nats of the items of events, each after the event before it.

        While the head trains, this includes its own auxiliary losses.

        Args:
            states: of the batch.
            events: rows in the batch of the events that are predicted.
            row_P: catalogue rows of their items.
        """

    def at_requests(self, states: States, requests: np.ndarray, row_Q: np.ndarray) -> Tensor:
        """(Q,) log-probabilities that these items follow these requests.

        Args:
            states: of the batch.
            requests: requests of the batch, which may repeat.
            row_Q: a catalogue row for each.
        """


@runtime_checkable
class ScoresPairs(Protocol):
    """A likelihood that can also give logits of single items: what objectives over pairs need."""

    @property
    def n_items(self) -> int:
        """Items of the catalogue."""

    def pair_logits(
        self, states: States, events: np.ndarray, row_P: np.ndarray, *, n_negatives: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return logits (P,) of the items of events, and (P, K) of negatives, each after the event before it.

        Args:
            states: of the batch.
            events: rows in the batch of the events that are predicted.
            row_P: catalogue rows of their items.
            n_negatives: K, drawn for each event from the negatives of the step; one that is the event's own item has a
                logit of minus infinity.
            rng: draws them.
        """


class Learner(Protocol):
    """What a head works out once for the training on a corpus."""

    def step(
        self,
        batch: Batch,
        targets: np.ndarray,
        *,
        rng: np.random.Generator,
        generator: torch.Generator | None = None,
    ) -> Likelihood:
        """Get ready for the targets of one batch.

        Args:
            batch: the prompts.
            targets: catalogue rows of all targets of the step.
            rng: of drawn negatives.
            generator: of hidden identities; None hides none.
        """


class Head(Protocol):
    """An `nn.Module` that the recommender owns.

    A *catalogue* is what a head worked out for the items of a corpus: callers hold it and pass it back.
    """

    @property
    def reads_events(self) -> bool:
        """Whether `read` lets a request see the states of its past events, beside its own state."""

    def read(self, request_RD: Tensor, event_ED: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        """What the head needs of decoded states; it becomes `States.head`."""

    def learner(self, factory: TokenFactory, corpus: Corpus) -> Learner:
        """Prepare training on a corpus."""

    def prepare(self, factory: TokenFactory, corpus: Corpus) -> Any:
        """The catalogue of a corpus' items."""

    def best(
        self, states: States, rows: Sequence[np.ndarray], wanted: Mapping[int, Wanted], catalogue: Any
    ) -> dict[int, Best]:
        """The best items for some of the requests.

        Args:
            states: of the requests.
            rows: for each request, the catalogue row of each event that it sees, -1 for an item that is not there.
            wanted: by request, what it asks for. With `only`, every item of that choice gets its score.
            catalogue: of `prepare`.
        """


@runtime_checkable
class ScoresAll(Protocol):
    """A head that can score the whole catalogue."""

    def scores(self, states: States, row_RT: Tensor, catalogue: Any) -> Tensor:
        """(R, V) log-probabilities that each item follows.

        Args:
            states: of the requests.
            row_RT: catalogue row of each event that a request sees, -1 elsewhere.
            catalogue: of `prepare`.
        """


@runtime_checkable
class Indexed(Protocol):
    """A head that can look the best items of a large catalogue up in an index; the index stands in the catalogue."""

    def plan_index(self, catalogue: Any, asked: Sequence[States]) -> dict[str, Tensor]:
        """What the index is built from: arrays alone, worked out once for a release.

        Args:
            catalogue: of `prepare`.
            asked: states of typical requests.
        """

    def n_lists(self, plan: Mapping[str, Tensor]) -> int:
        """Lists that a request can look through."""

    def open_index(self, catalogue: Any, plan: Mapping[str, Tensor], *, effort: int) -> Any:
        """The catalogue with its index; unchanged where the machine is quicker without one.

        Args:
            catalogue: of `prepare`.
            plan: of `plan_index`.
            effort: lists that a request for few items looks through.

        Raises:
            DataError: the plan is of another catalogue.
        """

    def with_effort(self, catalogue: Any, effort: int) -> Any:
        """The catalogue with the same index, of which a request looks through so many lists."""

    def effort(self, catalogue: Any) -> int | None:
        """Lists that a request for few items looks through; None where there is no index."""

    def compare(
        self, catalogue: Any, states: States, request: int, found: Best, exact: Best, *, as_good: float
    ) -> tuple[float, float]:
        """Compare what an index found with the exact answer.

        Args:
            catalogue: of `prepare`.
            states: of the requests.
            request: which of them.
            found: its best items by the index.
            exact: as many by the exact product, and perhaps more.
            as_good: difference up to which an item counts as good as the last of the best, in log-probability.

        Returns:
            The share of the places that hold an item which belongs there or is as good, and the largest error of a
            score.
        """


@runtime_checkable
class Fitted(Protocol):
    """A head that is fitted to the items before the first step, as one that names them by codes."""

    @property
    def is_fitted(self) -> bool:
        """Whether that has been done."""

    def fit(self, factory: TokenFactory, corpus: Corpus, *, seed: int) -> None:
        """Fit the head's buffers, and those of the factory's item names, to a corpus."""

    def facts(self) -> dict[str, float]:
        """How well that went: numbers for the metrics of training, by name."""
