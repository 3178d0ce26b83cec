"""A request as it was asked, and what can be wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from lrm.schema import BAG, DENSE, EMBEDDING, ITEM_ID, SPARSE, USER_ID, Signal

Key = int | str
RECOMMEND, RANK = "recommend", "rank"
INT64_LIMIT = 2**63


class Question(NamedTuple):
    """One request to the server."""

    kind: str
    """`recommend`: the best of the catalogue; `rank`: a probability for each candidate."""
    user_id: Key
    time: datetime
    """UTC instant."""
    context: Mapping[str, Any]
    """Request signals and join keys by name."""
    candidates: tuple[Mapping[str, Any], ...] | None
    """`item_id` and the candidate's own signals; None: the whole catalogue."""
    k: int = 10
    exclude_seen: bool = False


class Fields(NamedTuple):
    """What a request may carry."""

    key_types: Mapping[str, str]
    """`int64` or `string` for each join key."""
    request: tuple[Signal, ...]
    """Query signals that a request brings itself."""
    candidate: tuple[Signal, ...]
    """Candidate signals that a candidate brings itself."""
    as_of: datetime
    """UTC instant up to which the store knows the world."""


def problem(question: Question, fields: Fields) -> str:
    """What is wrong with a question, "" if nothing is: the field, what was seen, and what to send."""
    if question.time < fields.as_of:
        return (
            f"time: {question.time.isoformat()} lies before {fields.as_of.isoformat()}, up to which events and signals "
            "are known, so the answer would know the future; leave it out, or send a later one"
        )
    keys = [key for key in fields.key_types if key not in (USER_ID, ITEM_ID)]
    allowed = [*keys, *(signal.name for signal in fields.request)]
    found = [_key(USER_ID, USER_ID, question.user_id, fields), _unknown("context", question.context, allowed)]
    found += [_key(f"context.{key}", key, question.context[key], fields) for key in keys if key in question.context]
    found += [_signal(f"context.{s.name}", s, question.context.get(s.name)) for s in fields.request]
    if question.kind == RANK and not question.candidates:
        found.append("candidates: none were sent; send a list of item ids to rank")
    for place, candidate in enumerate(question.candidates or ()):
        where = f"candidates[{place}]"
        if ITEM_ID not in candidate:
            return f'{where}: has no "{ITEM_ID}"; send an item id, or an object with "{ITEM_ID}" and its signals'
        found.append(_key(f"{where}.{ITEM_ID}", ITEM_ID, candidate[ITEM_ID], fields))
        found.append(_unknown(where, candidate, [ITEM_ID, *(signal.name for signal in fields.candidate)]))
        found += [_signal(f"{where}.{s.name}", s, candidate.get(s.name)) for s in fields.candidate]
    return next(filter(None, found), "")


def _unknown(where: str, given: Mapping[str, Any], allowed: Sequence[str]) -> str:
    strange = sorted(set(given) - set(allowed))
    names = ", ".join(allowed) or "none"
    return f"{where}: {strange[0]!r} is not known; the fields are: {names}" if strange else ""


def _key(where: str, key: str, value: Any, fields: Fields) -> str:
    if fields.key_types[key] == "string":
        return "" if isinstance(value, str) else f"{where}: must be a string, got {value!r}"
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < INT64_LIMIT
    return "" if is_whole else f"{where}: must be a whole number, got {value!r}"


def _signal(where: str, signal: Signal, value: Any) -> str:
    """Nothing is wrong with an absent value: the model knows what to make of it."""
    if value is None:
        return ""
    if signal.kind == DENSE:
        return "" if _is_number(value) else f"{where}: must be a finite number, got {value!r}"
    if signal.kind == SPARSE:
        return "" if isinstance(value, str) else f"{where}: must be a string, got {value!r}"
    if signal.kind == BAG:
        fits = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return "" if fits else f"{where}: must be a list of strings, got {value!r}"
    assert signal.kind == EMBEDDING, signal.kind
    fits = isinstance(value, list) and len(value) == signal.dim and all(map(_is_number, value))
    return "" if fits else f"{where}: must be a list of {signal.dim} finite numbers, got {value!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
