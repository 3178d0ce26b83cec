"""The recommender: a token factory, a decoder, and two heads (which item next; what becomes of this candidate).

Shape suffixes: E events, R requests, C candidates, K query tokens of a request, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lrm.config import RunConfig
from lrm.model.decoder import Decoder
from lrm.model.repeats import Pointed, Repeats
from lrm.schema import Signal
from lrm.tokens.factory import TokenFactory
from lrm.tokens.prompt import Batch
from lrm.tokens.vocabulary import Vocabulary


class Prompt(NamedTuple):
    """The tokens of a batch, or their states, by the maker that they come from."""

    event_ED: Tensor
    query_ND: Tensor
    """K rows for each request."""
    candidate_CD: Tensor


class States(NamedTuple):
    """What the decoder makes of a batch."""

    event_ED: Tensor
    """After each event: compared with item vectors, it predicts the next one."""
    request_RD: Tensor
    """At each request: compared with item vectors, it predicts what follows the request."""
    pointed: Pointed
    """Which of its own past events each request points at."""
    candidate_logit_C: Tensor
    """Log-odds that the candidate's outcome is positive."""


class Recommender(nn.Module):
    """Token factory and decoder, trained jointly on retrieval and ranking.

    The state of a request is that of its last query token, or of the last event before it where there are no query
    tokens, or a learned start where there is neither.
    """

    def __init__(self, config: RunConfig, signals: Sequence[Signal], vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.signals, self.vocabulary = config, tuple(signals), vocabulary
        d_model = config.model.d_model
        self.factory = TokenFactory(signals, vocabulary, config.tokens, d_model=d_model)
        self.decoder = Decoder(config.model)
        self.start_D = nn.Parameter(torch.randn(d_model) * 0.02)
        self.repeats = Repeats(d_model=d_model)
        self.outcome = nn.Linear(d_model, 1)

    @property
    def n_query_tokens(self) -> int:
        """K."""
        return self.config.tokens.n_query_tokens

    def tokens(self, batch: Batch) -> Prompt:
        """What the factory makes of a batch: the tokens that the decoder reads."""
        return Prompt(
            self.factory.history_tokens(batch.identity_E, batch.history_E),
            self.factory.query_tokens(batch.query_R).flatten(0, 1),
            self.factory.candidate_tokens(batch.identity_C, batch.candidate_C),
        )

    def decode(self, prompt: Prompt, batch: Batch) -> Prompt:
        """The state of every token of a batch after the last block."""
        states_ND = self.decoder(torch.cat(prompt), batch.layout, n_query_tokens=self.n_query_tokens)
        n_events, n_query = len(prompt.event_ED), len(prompt.query_ND)
        return Prompt(*states_ND.tensor_split((n_events, n_events + n_query)))

    def forward(self, batch: Batch) -> States:
        """Run factory and decoder over a batch of prompts."""
        event_ED, query_ND, candidate_CD = self.decode(self.tokens(batch), batch)
        request_RD = self._at_request(event_ED, query_ND, batch)
        pointed = self.repeats(request_RD, event_ED, batch.layout)
        return States(event_ED, request_RD, pointed, self.outcome(candidate_CD).squeeze(-1))

    def _at_request(self, event_ED: Tensor, query_ND: Tensor, batch: Batch) -> Tensor:
        if self.n_query_tokens:
            return query_ND[self.n_query_tokens - 1 :: self.n_query_tokens]
        last_R = batch.layout.last_event_R
        padded = torch.cat([self.start_D.unsqueeze(0), event_ED])
        return padded[last_R + 1]
