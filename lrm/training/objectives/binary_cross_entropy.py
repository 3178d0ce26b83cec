"""Binary cross-entropy: tell each event's item apart from drawn items, one by one (SASRec, 1808.09781).

With `calibration` above 0 the probability of the item itself is raised to a power, which makes up for negatives that
are only sampled (gBCE of gSASRec, 2308.07192, equations 7 and 8).

Shape suffixes: P predictions, K negatives of a prediction.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from lrm.errors import ConfigError
from lrm.model.heads import ScoresPairs
from lrm.model.states import States
from lrm.training.context import Context


def loss(states: States, context: Context, *, n_negatives: float = 1, calibration: float = 0.0) -> Tensor:
    """Compute the mean loss over events, in nats; 0 without predictable events.

    Args:
        states: what the decoder makes of the batch.
        context: the step.
        n_negatives: of each event, drawn from the negatives of the step.
        calibration: t of gBCE, from 0 (plain binary cross-entropy) to 1 (logits as of a softmax over all items).

    Raises:
        ConfigError: the item head gives no logits of single items.
    """
    targets, likelihood = context.targets, context.likelihood
    if not isinstance(likelihood, ScoresPairs):
        raise ConfigError(
            "the objective 'binary_cross_entropy' needs an item head that scores single items; take the objective "
            "'next_item' with this head"
        )
    with context.precision():
        positive_P, negative_PK = likelihood.pair_logits(
            states, targets.event_P, targets.event_row_P, n_negatives=int(n_negatives), rng=context.rng
        )
    power = positive_power(int(n_negatives), n_items=likelihood.n_items, calibration=calibration)
    nll_P = -power * functional.logsigmoid(positive_P.float()) + functional.softplus(negative_PK.float()).sum(-1)
    return nll_P.sum() / max(1, len(targets.event_P))


def positive_power(n_negatives: int, *, n_items: int, calibration: float) -> float:
    """Return the power of the positive probability: beta of gBCE."""
    rate = min(1.0, n_negatives / max(1, n_items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)
