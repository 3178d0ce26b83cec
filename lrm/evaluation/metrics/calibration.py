"""How much worse calibrated one model is than another, without the pull of noise.

The expected calibration error (ECE) is a mean of absolute gaps between probability and outcome, and noise makes each
gap wider. Where two models' true gaps are small, noise widens both alike, and the difference of the two estimates is
pulled to zero (on the bias of one estimate: Kumar et al. 2019, "Verified uncertainty calibration"). What is estimated
here is a bound that errs on the other side.

Both models saw the same outcomes: their noise is shared: how far apart the two gaps of a bin are is known far better
than either gap. In a bin where the mean of the two gaps is on one side of zero beyond doubt, the difference of the
absolute gaps is that of the gaps, with that sign. Where it is not, either sign may be true, and the bound takes the bad
one: the gaps' distance counts as worse. The bins are those of the model in question; the other's gaps are carried over
from its own bins, by the rows that a bin of each has in common. The mean of absolute gaps can only shrink by that
(Jensen), so the bound holds for the two ECEs as they are defined. It is a mean over rows; its interval is that of the
t distribution with the deviation of the draws of users. The chance that some bin's sign is taken wrongly is held to
half of what an end of the interval leaves.

Axes: N rows, U users (or bags of them), B bins of the one model, C bins of the other.
"""

from __future__ import annotations

import numpy as np

from lrm.evaluation.metrics.bootstrap import Draws, Interval, Statistic, mean, t_interval
from lrm.evaluation.metrics.metrics import Floats, Ints, calibration, calibration_bin, expected_calibration_error


def difference(
    draws: Draws, user: Ints, own: Floats, other: Floats, labels: Floats, *, confidence: float
) -> tuple[Interval, Statistic]:
    """The ECE of `own` minus that of `other`, and the bound that its upper end rests on.

    The value is the difference of the two estimates. The interval's ends are bounds: the upper end is below the truth
    with a chance of (1 - confidence) / 2 at most, or half as much again for the signs; likewise the lower end.

    Args:
        draws: of the users.
        user: (N,) of each row.
        own: (N,) probabilities of one model.
        other: (N,) of the other.
        labels: (N,) outcomes.
        confidence: of the interval.
    """
    value, found = float("nan"), list[Statistic]()
    for one, two in ((own, other), (other, own)):
        found.append(_at_most(draws, user, one, two, labels, confidence=confidence))
    if labels.size:
        errors = (expected_calibration_error(calibration(each, labels)) for each in (own, other))
        value = next(errors) - next(errors)
    if min(each.n_users for each in found) < 2:
        return Interval(value, float("nan"), float("nan")), found[0]
    high, low = (t_interval(each, confidence=confidence).high for each in found)
    return Interval(value, min(-low, value), max(high, value)), found[0]._replace(value=value)


def _at_most(draws: Draws, user: Ints, own: Floats, other: Floats, labels: Floats, *, confidence: float) -> Statistic:
    """A mean over rows that is no less, beyond noise, than the ECE of `own` minus that of `other`."""
    from scipy.special import stdtrit

    if not labels.size:
        return mean(draws, user, labels)
    (bin_own, n_own), (bin_other, n_other) = (_bins(each) for each in (own, other))
    common = np.bincount(bin_own * n_other + bin_other, minlength=n_own * n_other).reshape(n_own, n_other)
    share = common / common.sum(axis=0)
    bag, n_bags = draws.bag[user], draws.counts.shape[1]
    gap_of_user = _sums(bag, bin_own, own - labels, n_bags, n_own)
    other_of_user = _sums(bag, bin_other, other - labels, n_bags, n_other) @ share.T
    gap, carried = gap_of_user.sum(axis=0), other_of_user.sum(axis=0)
    middle_of_user = (gap_of_user + other_of_user) / 2
    n_users = max(2, int(np.unique(bag).size))
    spread = middle_of_user.std(axis=0) * n_bags**0.5 * (n_users / (n_users - 1)) ** 0.5
    chance = np.bincount(bin_own, own * (1 - own), n_own) ** 0.5  # a bin without a positive would seem to be sure
    deviation = np.maximum(spread, chance)
    sure = float(stdtrit(n_users - 1, 1 - (1 - confidence) / 4 / n_own))
    middle, apart = middle_of_user.sum(axis=0), gap - carried
    is_known = np.abs(middle) > sure * deviation
    is_across = is_known & (np.abs(middle) < np.abs(apart) / 2)  # the two gaps lie on either side of zero
    sign = np.where(is_known, np.sign(middle), np.sign(apart))
    sign_own, sign_other = (np.where(is_across, np.sign(each), sign) for each in (gap, carried))
    rows = sign_own[bin_own] * (own - labels) - (sign_other @ share)[bin_other] * (other - labels)
    return mean(draws, user, rows)


def _bins(probabilities: Floats) -> tuple[Ints, int]:
    """The bin of each row, numbered without gaps, and how many bins there are."""
    held, index = np.unique(calibration_bin(probabilities), return_inverse=True)
    return index, held.size


def _sums(bag: Ints, bins: Ints, values: Floats, n_bags: int, n_bins: int) -> Floats:
    """(U, B) sums of `values` (N,)."""
    sums: Floats = np.bincount(bag * n_bins + bins, values, n_bags * n_bins).astype(np.float64)
    return sums.reshape(n_bags, n_bins)
