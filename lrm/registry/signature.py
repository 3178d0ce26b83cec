"""What a registered model takes and gives, spelled in the form that the registry's clients read.

One row of input is one request: the instant, the query signals, the user's history (one object per event) and the
candidates to rank (one object each). It is derived from `signals.json`, so a new signal appears here by itself. Signals
may be absent, keys may not. The user's id is no input: only what is known of the user matters. Numbers are float32, but
for those inside an object or a list: there MLflow would refuse every JSON number, so a double is taken and rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lrm.schema import (
    BAG,
    CANDIDATE,
    DENSE,
    EMBEDDING,
    EVENT_TIME,
    HISTORY,
    ITEM_ID,
    QUERY,
    SPARSE,
    Signal,
    for_maker,
)

FLOAT, DOUBLE, LONG, STRING = "float", "double", "long", "string"
CANDIDATES, ITEMS, SCORES, PROBABILITIES = "candidates", "items", "scores", "probabilities"


def model_signature(signals: tuple[Signal, ...], *, item_type: str) -> dict[str, list[dict[str, Any]]]:
    """The columns of input and output.

    Args:
        signals: the declared signals.
        item_type: `long` or `string`.
    """
    event = _object((ITEM_ID, item_type), (EVENT_TIME, STRING), signals=for_maker(signals, HISTORY))
    candidate = _object((ITEM_ID, item_type), signals=for_maker(signals, CANDIDATE))
    inputs = [
        {"name": EVENT_TIME, "type": STRING, "required": True},
        *(_named(signal) for signal in for_maker(signals, QUERY)),
        _array(HISTORY, event, required=True),
        _array(CANDIDATES, candidate, required=False),
    ]
    outputs = [
        _array(ITEMS, {"type": item_type}, required=True),
        _array(SCORES, {"type": FLOAT}, required=True),
        _array(PROBABILITIES, {"type": FLOAT}, required=False),
    ]
    return {"inputs": inputs, "outputs": outputs}


def input_example(signals: tuple[Signal, ...], *, item_ids: list[Any]) -> dict[str, Any]:
    """One request that the signature accepts: two past events, and their items as the candidates."""
    known = item_ids[:2]
    past, query, offered = (_values(for_maker(signals, maker)) for maker in (HISTORY, QUERY, CANDIDATE))
    events = [{ITEM_ID: item, EVENT_TIME: "2020-01-01T00:00:00"} | past for item in known]
    candidates = [{ITEM_ID: item} | offered for item in known]
    return {EVENT_TIME: "2020-01-02T00:00:00"} | query | {HISTORY: events, CANDIDATES: candidates}


def item_type_of(item_ids: list[Any]) -> str:
    """`long` for a catalogue of numbers, else `string`."""
    return LONG if all(isinstance(item, int) for item in item_ids) else STRING


def _type(signal: Signal, number: str) -> dict[str, Any]:
    scalar = {DENSE: number, SPARSE: STRING, BAG: STRING, EMBEDDING: DOUBLE}[signal.kind]
    return {"type": scalar} if signal.kind in (DENSE, SPARSE) else {"type": "array", "items": {"type": scalar}}


def _named(signal: Signal) -> dict[str, Any]:
    return {"name": signal.name, "required": False} | _type(signal, FLOAT)


def _array(name: str, items: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {"name": name, "type": "array", "items": items, "required": required}


def _object(*keys: tuple[str, str], signals: Iterable[Signal]) -> dict[str, Any]:
    properties = {name: {"type": kind, "required": True} for name, kind in keys}
    properties |= {signal.name: {"required": False} | _type(signal, DOUBLE) for signal in signals}
    return {"type": "object", "properties": properties}


def _values(signals: Iterable[Signal]) -> dict[str, Any]:
    return {signal.name: _value(signal) for signal in signals}


def _value(signal: Signal) -> Any:
    """A value that the declaration allows."""
    category = signal.categories[0] if signal.categories else "a"
    values = {DENSE: signal.minimum or 0.0, SPARSE: category, BAG: [category], EMBEDDING: [0.0] * (signal.dim or 0)}
    return values[signal.kind]
