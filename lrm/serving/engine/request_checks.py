"""A request as it was asked, an event as it was sent, and what can be wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lrm.limits import MAX_BAG, MAX_KEY, MAX_NUMBER, MAX_TEXT, MIN_KEY
from lrm.schema import BAG, DENSE, EMBEDDING, ITEM_ID, SPARSE, USER_ID, Signal, as_category

Key = int | str
RECOMMEND, SCORE = "recommend", "score"
TEXT = f"string of at most {MAX_TEXT:,} characters"
NUMBER = f"a finite number within {MAX_NUMBER:.3g}"
AHEAD = timedelta(days=366)
"""How far after both the present and the end of the data a request may lie."""
CLOCK_SKEW = timedelta(minutes=1)
"""How far after the present an event may lie."""
SHOWN = 100
"""Characters of a bad value that a message repeats."""
_HALF = re.compile("[\ud800-\udfff]")
_set = lru_cache(maxsize=256)(frozenset[str])


class PredictRequest(NamedTuple):
    """One request to the server."""

    kind: str
    """`recommend`: the best of the catalogue; `score`: a probability for each candidate."""
    user_id: Key
    time: datetime | None = None
    """UTC instant; None: now, or just after the user's last event where the data are a replayed world."""
    context: Mapping[str, Any] = {}
    """Request signals and join keys by name."""
    candidates: tuple[Mapping[str, Any], ...] | None = None
    """`item_id` and the candidate's own signals; None: the whole catalogue."""
    k: int | None = 10
    """How many items at most; None: all."""
    exclude: tuple[Key, ...] = ()
    exclude_seen: bool = False


class Event(NamedTuple):
    """Something a user did."""

    user_id: Key
    item_id: Key
    time: datetime | None = None
    """UTC instant; None as for a question."""
    signals: Mapping[str, Any] = {}
    """History signals that the event brings itself, and join keys, by name."""


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
    event: tuple[Signal, ...] = ()
    """History signals that an event brings itself."""

    @property
    def request_keys(self) -> list[str]:
        """The join keys besides those of user and item."""
        return [key for key in self.key_types if key not in (USER_ID, ITEM_ID)]


def problem(request: PredictRequest, fields: Fields, *, now: datetime) -> str:
    """What is wrong with a question, "" if nothing is: the field, what was seen, and what to send."""
    return (
        _time("time", request.time, fields, latest=max(now, fields.as_of) + AHEAD)
        or _key(USER_ID, USER_ID, request.user_id, fields)
        or _carried("context", request.context, fields.request, fields)
        or _excluded(request.exclude, fields)
        or _candidates(request.candidates or (), fields)
    )


def normalise_request(request: PredictRequest, fields: Fields) -> PredictRequest:
    """The question with booleans, and whole numbers among categories, as training reads columns of such values."""
    candidates = request.candidates and tuple(
        one if len(one) == 1 else _stored(one, fields.candidate) for one in request.candidates
    )
    return request._replace(context=_stored(request.context, fields.request), candidates=candidates)


def normalise_event(event: Event, fields: Fields) -> Event:
    """The event, likewise."""
    return event._replace(signals=_stored(event.signals, fields.event))


def _stored(given: Mapping[str, Any], signals: Sequence[Signal]) -> Mapping[str, Any]:
    kinds = {signal.name: signal.kind for signal in signals if signal.name in given}
    return given if not kinds else dict(given) | {name: _in_form(kind, given[name]) for name, kind in kinds.items()}


def _in_form(kind: str, value: Any) -> Any:
    if kind == BAG and isinstance(value, list):
        return [_in_form(SPARSE, one) for one in value]
    if kind == SPARSE and isinstance(value, int):
        return as_category(value)
    return float(value) if kind == DENSE and isinstance(value, bool) else value


def event_problem(event: Event, fields: Fields, *, where: str, now: datetime) -> str:
    """What is wrong with an event, "" if nothing is."""
    return (
        _key(f"{where}.{USER_ID}", USER_ID, event.user_id, fields)
        or _key(f"{where}.{ITEM_ID}", ITEM_ID, event.item_id, fields)
        or _time(f"{where}.time", event.time, fields, latest=max(now, fields.as_of) + CLOCK_SKEW)
        or _carried(f"{where}.signals", event.signals, fields.event, fields)
    )


def shown(value: Any) -> str:
    """A bad value as a message repeats it: its beginning. What is not shown is not looked at."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > SHOWN:
            return f"{text[:SHOWN]}..."
    return text


def _pieces(value: Any) -> Iterator[str]:
    """What `repr` would say of a value that was read from JSON, bit by bit."""
    if isinstance(value, dict):
        yield "{"
        for at, (key, one) in enumerate(value.items()):
            yield f"{', ' if at else ''}{shown(key)}: "
            yield from _pieces(one)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for at, one in enumerate(value):
            yield ", " if at else ""
            yield from _pieces(one)
        yield "]"
    else:
        yield repr(value[: SHOWN + 1] if isinstance(value, str | bytes) else value)


def _time(where: str, time: datetime | None, fields: Fields, *, latest: datetime) -> str:
    if time is None:
        return ""
    if time < fields.as_of:
        return (
            f"{where}: {time.isoformat()} lies before {fields.as_of.isoformat()}, up to which events and signals are "
            "known, so the answer would know the future; leave it out, or send a later one"
        )
    if time > latest:
        return f"{where}: {time.isoformat()} lies too far ahead; send one up to {latest.isoformat(timespec='seconds')}"
    return ""


def _excluded(items: Sequence[Key], fields: Fields) -> str:
    wrong = (at for at, item in enumerate(items) if not _fits(ITEM_ID, item, fields))
    return next((_key(f"exclude[{at}]", ITEM_ID, items[at], fields) for at in wrong), "")


def _candidates(candidates: Sequence[Mapping[str, Any]], fields: Fields) -> str:
    names = {ITEM_ID, *(signal.name for signal in fields.candidate)}
    for place, candidate in enumerate(candidates):
        if len(candidate) == 1 and ITEM_ID in candidate and _fits(ITEM_ID, candidate[ITEM_ID], fields):
            continue  # most are; the words below would take longer than the look
        where = f"candidates[{place}]"
        if ITEM_ID not in candidate:
            return f'{where}: has no "{ITEM_ID}"; send an item id, or an object with "{ITEM_ID}" and its signals'
        found = _key(f"{where}.{ITEM_ID}", ITEM_ID, candidate[ITEM_ID], fields)
        found = found or _unknown(where, candidate, names) or _signals(where, candidate, fields.candidate)
        if found:
            return found
    return ""


def _carried(where: str, given: Mapping[str, Any], signals: Sequence[Signal], fields: Fields) -> str:
    """What is wrong with join keys and signals that came by name."""
    keys = fields.request_keys
    found = [_unknown(where, given, [*keys, *(signal.name for signal in signals)])]
    found += [_key(f"{where}.{key}", key, given[key], fields) for key in keys if key in given]
    return next(filter(None, found), "") or _signals(where, given, signals)


def _signals(where: str, given: Mapping[str, Any], signals: Sequence[Signal]) -> str:
    return next(filter(None, (_signal(f"{where}.{s.name}", s, given.get(s.name)) for s in signals)), "")


def _unknown(where: str, given: Mapping[str, Any], allowed: Sequence[str] | set[str]) -> str:
    strange = sorted(set(given) - set(allowed))
    names = ", ".join(allowed) or "none"
    return f"{where}: {shown(strange[0])} is not known; the fields are: {names}" if strange else ""


def _key(where: str, key: str, value: Any, fields: Fields) -> str:
    if _fits(key, value, fields):
        return ""
    kind = TEXT if fields.key_types[key] == "string" else "whole number of 64 bits"
    return f"{where}: must be a {kind}, got {shown(value)}"


def _fits(key: str, value: Any, fields: Fields) -> bool:
    """Whether a join key is of its type."""
    if fields.key_types[key] == "string":
        return _is_text(value)
    return isinstance(value, int) and not isinstance(value, bool) and MIN_KEY <= value <= MAX_KEY


def _signal(where: str, signal: Signal, value: Any) -> str:
    """Nothing is wrong with an absent value: the model knows what to make of it."""
    return "" if value is None else _form(where, signal, value) or _limits(where, signal, value)


def _form(where: str, signal: Signal, value: Any) -> str:
    if signal.kind == DENSE:
        return "" if _is_number(value) else f"{where}: must be {NUMBER}, got {shown(value)}"
    if signal.kind == SPARSE:
        return "" if _is_text(value) else f"{where}: must be a {TEXT}, got {shown(value)}"
    if signal.kind == BAG:
        fits = isinstance(value, list) and len(value) <= MAX_BAG and all(map(_is_text, value))
        return (
            "" if fits else f"{where}: must be a list of at most {MAX_BAG:,} members, each a {TEXT}, got {shown(value)}"
        )
    assert signal.kind == EMBEDDING, signal.kind
    fits = isinstance(value, list) and len(value) == signal.dim and all(map(_is_number, value))
    return "" if fits else f"{where}: must be a list of {signal.dim}, each {NUMBER}, got {shown(value)}"


def _limits(where: str, signal: Signal, value: Any) -> str:
    """What validation would stop a run for: a number out of its declared range, a category that is not declared."""
    if signal.kind == DENSE:
        low, high = signal.stored_range
        stored = np.float32(value)  # as training read it
        if (low is not None and stored < low) or (high is not None and stored > high):
            return f"{where}: {shown(value)} is out of its declared range, {signal.range_in_words}"
    if signal.categories is not None and signal.kind in (SPARSE, BAG):
        allowed = _set(signal.categories)
        strange = [one for one in ([value] if signal.kind == SPARSE else value) if one not in allowed]
        if strange:
            return f"{where}: {shown(strange[0])} is no declared category; send one of: {signal.categories_in_words}"
    return ""


def _is_number(value: Any) -> bool:
    """Whether it is finite, and stays so in float32."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and (isinstance(value, int) or math.isfinite(value)) and abs(value) <= MAX_NUMBER


def _is_text(value: Any) -> bool:
    """Whether it is a string, not too long, of real characters: half of a pair, as JSON can spell, is none."""
    return isinstance(value, str) and len(value) <= MAX_TEXT and (value.isascii() or not _HALF.search(value))
