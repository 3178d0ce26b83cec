"""The recommender: a token factory, a decoder, an item head (which item next), and the outcome of candidates.

Shape suffixes: E events, R requests, C candidates, K query tokens of a request, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lrm.config import RunConfig
from lrm.errors import ConfigError
from lrm.features.tables import Tables
from lrm.model.blocks import tells_next_time
from lrm.model.decoder import Decoder
from lrm.model.heads import HEADS, Design, Fitted, Head
from lrm.model.states import States
from lrm.parts import check_options, part
from lrm.schema import Signal
from lrm.tokens.corpus import Corpus, encode_corpus
from lrm.tokens.factory import TokenFactory
from lrm.tokens.layout import Layout
from lrm.tokens.makers import as_variant_sees
from lrm.tokens.prompt import Batch
from lrm.tokens.segments import PromptShape
from lrm.tokens.vocabulary import Vocabulary


class Prompt(NamedTuple):
    """The flat tokens of a batch, or their states, by group; each (tokens, D)."""

    memory_ND: Tensor
    event_ND: Tensor
    query_ND: Tensor
    candidate_ND: Tensor


class Recommender(nn.Module):
    """Token factory and decoder, trained jointly on retrieval and ranking.

    The state of a request is that of its last query token, or of the last event before it where there are no query
    tokens, or a learned start where there is neither.
    """

    def __init__(self, config: RunConfig, signals: Sequence[Signal], vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.signals, self.vocabulary = config, tuple(signals), vocabulary
        d_model = config.model.d_model
        head, options = part(HEADS, config.model.head), config.model.head_options
        design = Design(config, self.signals, vocabulary)
        check_options(f"the item head {config.model.head!r}", head.Head, options)
        names = partial(head.item_names, design, **options) if hasattr(head, "item_names") else None
        self.factory = TokenFactory(signals, vocabulary, config.tokens, d_model=d_model, names=names)
        self.decoder = Decoder(config.model, n_positions=self.prompt_shape().n_positions)
        self.start_D = nn.Parameter(torch.randn(d_model) * 0.02)
        self.head: Head = head.Head(design, **options)
        self.outcome = nn.Linear(d_model, 1)
        if self.head.reads_events and tells_next_time(config.model):
            raise ConfigError(
                f"the block {config.model.block!r} tells each event the time of the next one, and the item head "
                f"{config.model.head!r} reads past events at a request, so it would read that; set its option "
                "copy_head to False in the preset, or choose another head"
            )

    def encode(self, tables: Tables) -> Corpus:
        """Encode tables as this recommender reads them."""
        corpus = encode_corpus(tables, self.signals, self.vocabulary)
        return as_variant_sees(corpus, self.config.tokens, self.vocabulary)

    def prompt_shape(self, budget: int | None = None) -> PromptShape:
        """The shape of a prompt.

        Args:
            budget: tokens at most of a query and of a candidate; only a model trained with `elastic` tokens is meant to
                be used with fewer than all.
        """
        tokens, factory = self.config.tokens, self.factory
        n_query = factory.query.n_tokens if factory.query else 0
        n_candidate = factory.candidate.n_tokens
        max_history, reread_events = self.config.model.max_history, int(tells_next_time(self.config.model))
        if tokens.text_budget:
            soft = max_history * tokens.n_event_tokens + tokens.n_query_tokens + tokens.n_candidate_tokens
            max_history = max(1, (soft - n_query - n_candidate) // factory.history.n_tokens)  # 1: see check_budget
        return PromptShape(
            per_event=factory.history.n_tokens,
            per_query=min(n_query, budget or n_query) + reread_events * factory.history.n_tokens,
            per_candidate=min(n_candidate, budget or n_candidate),
            max_history=max_history,
            older_events=tokens.memory_events if factory.memory else 0,
            memory_tokens=tokens.memory_tokens if factory.memory else 0,
            reread_events=reread_events,
        )

    def check_budget(self) -> None:
        """Refuse to train a text model that cannot be as short as soft tokens; one that was trained so still scores.

        Raises:
            ConfigError: the text of a query, a candidate and one event is longer than a whole prompt of soft tokens.
        """
        tokens, max_history, shape = self.config.tokens, self.config.model.max_history, self.prompt_shape()
        shortest = shape.per_event + shape.per_query + shape.per_candidate
        least = -(-(shortest - tokens.n_query_tokens - tokens.n_candidate_tokens) // tokens.n_event_tokens)
        if tokens.text_budget and max_history < least:
            raise ConfigError(
                f"the text of one event ({shape.per_event} tokens), a query ({shape.per_query}) and a candidate "
                f"({shape.per_candidate}) is longer than a prompt of soft tokens with max_history {max_history}; with "
                f"these signals text_budget needs a max_history of {least} or more"
            )

    def planned_shape(self) -> PromptShape:
        """Return the prompt as if all its tokens were soft. Batches are planned by it, the same for every variant."""
        tokens = self.config.tokens
        return self.prompt_shape()._replace(
            per_event=tokens.n_event_tokens, per_query=tokens.n_query_tokens, per_candidate=tokens.n_candidate_tokens
        )

    def fit_head(self, corpus: Corpus, *, seed: int) -> None:
        """Fit the head to the items of a corpus, where it is to be fitted and is not yet."""
        if isinstance(self.head, Fitted) and not self.head.is_fitted:
            self.head.fit(self.factory, corpus, seed=seed)

    def head_facts(self) -> dict[str, float]:
        """How well the head was fitted, for the metrics of training; nothing for a head that is not fitted."""
        return self.head.facts() if isinstance(self.head, Fitted) else {}

    def tokens(self, batch: Batch) -> Prompt:
        """What the factory makes of a batch: the tokens that the decoder reads."""
        shape, factory = batch.layout.shape, self.factory
        context = factory.request_context(batch.query_R, batch.layout.candidate_request)
        memory_GMD = factory.memory_tokens(batch.older)
        event_EKD = factory.history_tokens(batch.identity_E, batch.history_E)
        query_RKD = factory.query_tokens(batch.query_R, shape.soft_query, context.embedded_RMW)
        if shape.reread_events:
            latest_RKD = torch.cat([self.no_event(), event_EKD])[batch.layout.last_event_R + 1]
            query_RKD = torch.cat([latest_RKD, query_RKD], dim=1)
        return Prompt(
            memory_GMD.flatten(0, 1),
            event_EKD.flatten(0, 1),
            query_RKD.flatten(0, 1),
            factory.candidate_tokens(batch.identity_C, batch.candidate_C, context, shape.per_candidate).flatten(0, 1),
        )

    def no_event(self) -> Tensor:
        """Return (1, K, D): what a request without history reads in place of its latest event."""
        return self.start_D.expand(1, self.factory.history.n_tokens, -1)

    def decode(self, prompt: Prompt, batch: Batch) -> Prompt:
        """The state of every token of a batch after the last block."""
        states_ND, _ = self.decoder(torch.cat(prompt), batch.layout)
        return Prompt(*torch.split(states_ND, [len(tokens_ND) for tokens_ND in prompt]))

    def forward(self, batch: Batch) -> States:
        """Run factory and decoder over a batch of prompts; an event, request or candidate speaks by its last token."""
        per_event = batch.layout.shape.per_event
        _, event_ND, query_ND, candidate_ND = self.decode(self.tokens(batch), batch)
        return self.states(event_ND[per_event - 1 :: per_event], query_ND, candidate_ND, batch.layout)

    def states(self, event_ED: Tensor, query_ND: Tensor, candidate_ND: Tensor, layout: Layout) -> States:
        """What is read off the decoded tokens, an event given by the state of its last."""
        per_candidate = layout.shape.per_candidate
        request_RD = self._at_request(event_ED, query_ND, layout)
        read = self.head.read(request_RD, event_ED, layout)
        candidate_CD = candidate_ND[per_candidate - 1 :: per_candidate]
        return States(event_ED, request_RD, read, self.outcome(candidate_CD).squeeze(-1))

    def _at_request(self, event_ED: Tensor, query_ND: Tensor, layout: Layout) -> Tensor:
        per_query = layout.shape.per_query
        if per_query:
            return query_ND[per_query - 1 :: per_query]
        padded = torch.cat([self.start_D.unsqueeze(0), event_ED])
        return padded[layout.last_event_R + 1]
