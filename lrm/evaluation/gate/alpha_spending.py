"""How often these test data were looked at before, and how sure this look must be for that.

Each look at the same test data is one more chance to promote a model that is no better. So the chances of all looks
together are held to the stated level, 1 - confidence, of which one half, one end of an interval, is what a single look
takes. Requests that no look has seen bring that half once; the other half is for the looks that see requests again, the
n-th of them taking 1 / (n (n + 1)) of it, which however many there are sums to 1.

A look's level is thus, in parts of a first look's: the share of requests that are new to it, and for the rest
1 / (n (n + 1)), n being the number of other models that were judged on any of them. Over any stretch of test data as
long as one window the levels sum to the stated level at most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrm.errors import DataError
from lrm.evaluation.metrics.metrics import Ints

LOOKS = "looks.json"


class Look(NamedTuple):
    """A model that was judged before."""

    version: str
    weights_sha256: str
    data: str
    judged_from: str
    """ISO instant of the first test request that it was judged on, and of the last."""
    judged_until: str
    parent_version: str
    """The champion that it was compared with; "" for a first model."""


class Looks(NamedTuple):
    """What earlier looks leave to this one."""

    n_earlier: int = 0
    """Other models that were judged, against a champion as this one is or as first models, on any of these requests."""
    new: float = 1.0
    """The share of the test requests that none of them was judged on."""

    def confidence(self, stated: float) -> float:
        """Of the intervals that decide at this look, where `stated` is that of a single one."""
        n = self.n_earlier
        share = self.new + (1 - self.new) / (n * (n + 1)) if n else 1.0
        return 1 - (1 - stated) * share


def read(folder: Path | None) -> list[Look]:
    """The looks that the registry knows of, as the step find_champion wrote them; none without a folder.

    Raises:
        DataError: the file is missing, no JSON, or lacks a field.
    """
    if folder is None:
        return []
    path = folder / LOOKS
    try:
        return [Look(**{name: str(row[name]) for name in Look._fields}) for row in json.loads(path.read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} does not tell the earlier looks ({error!r}); run the step find_champion again"
        ) from error


def window(times: Ints) -> dict[str, str | None]:
    """`judged_from` and `judged_until` of test requests at these instants (R,) in microseconds."""
    ends = (int(times.min()), int(times.max())) if times.size else (None, None)
    names = ("judged_from", "judged_until")
    return {name: None if at is None else _instant(at) for name, at in zip(names, ends, strict=True)}


def earlier(known: Sequence[Look], times: Ints, *, data: str, weights_sha256: str, has_champion: bool) -> Looks:
    """What these looks leave to a model that is judged on test requests at these instants.

    The same weights judged before, as by a run that is tried again, are no other look.

    Args:
        known: earlier looks.
        times: (R,) of the test requests, in microseconds.
        data: name of the data.
        weights_sha256: of the model.
        has_champion: it is compared with a champion.
    """
    is_seen, models = np.zeros(times.size, dtype=bool), set[str]()
    for look in known:
        is_alike = look.data == data and bool(look.parent_version) == has_champion
        if not is_alike or look.weights_sha256 == weights_sha256 or not look.judged_until:
            continue
        hit = (times >= _microseconds(look.judged_from)) & (times <= _microseconds(look.judged_until))
        if hit.any():
            is_seen |= hit
            models.add(look.weights_sha256 or look.version)
    return Looks(len(models), float(1 - is_seen.mean())) if models else Looks()


def as_json(looks: Looks, stated: float) -> dict[str, Any]:
    """What `evaluation.json` says of them."""
    return {"n_earlier": looks.n_earlier, "new": round(looks.new, 6), "confidence": looks.confidence(stated)}


def _microseconds(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1e6)


def _instant(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
