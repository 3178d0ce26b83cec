"""What the decoder makes of a batch, as heads and objectives read it.

Shape suffixes: E events, R requests, C candidates, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class States(NamedTuple):
    """States read off the decoded tokens."""

    event_ED: Tensor
    """After each event: the next item is predicted from it."""
    request_RD: Tensor
    """At each request: what follows the request is predicted from it."""
    head: tuple[Tensor, ...]
    """What the item head read off these states; the head alone knows what it is."""
    candidate_logit_C: Tensor
    """Log-odds that the candidate's outcome is positive."""
