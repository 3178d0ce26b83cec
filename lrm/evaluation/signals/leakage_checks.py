"""Checks before the gate: whether the numbers it reads can be believed.

What they look for is proof, so each compares instants or identities; `target_leakage` has the checks by likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from lrm.features.tables import Tables
from lrm.schema import EVENT_TIME, ITEM_ID, REQUEST_ID, SPLIT, SPLITS, TEST, TRAIN, USER_ID, VALIDATION, Signal
from lrm.tokens.corpus import Corpus


def late_signals(manifest: Mapping[str, Any]) -> list[str]:
    """Signals for which retrieval found values that were not yet known at the row's instant."""
    return [
        f"Signal {row['signal']!r} has a timestamp after the cutoff: {row['n_late']:,} of {row['n_checked']:,} checked "
        f"values of {row['view']} were not yet known at the row's instant; for example {row['example']}."
        for row in manifest.get("late", [])
        if row["n_late"]
    ]


def late_content(tables: Tables, manifest: Mapping[str, Any]) -> list[str]:
    """What items are, read at a time when some of the held-out events had happened."""
    at, held_out = manifest.get("content_at"), tables.events.filter(pl.col(SPLIT) != TRAIN)[EVENT_TIME].min()
    if at is None or not isinstance(held_out, datetime) or datetime.fromisoformat(at) <= held_out:
        return []
    return [
        f"The content of items is that known at {at}, after the first held-out event at {held_out.isoformat()}: it may "
        "tell of what is asked."
    ]


def rows_across_the_cut(tables: Tables, manifest: Mapping[str, Any]) -> list[str]:
    """Rows of one window that lie in another: training rows at or after the cutoff, test rows before it."""
    found = []
    for name in ("events", "requests") if manifest.get("test_from") else ():
        table: pl.DataFrame = getattr(tables, name)
        starts, ends = (datetime.fromisoformat(manifest[at]) for at in ("validation_from", "test_from"))
        at = pl.col(EVENT_TIME)
        odd = {TRAIN: at >= starts, VALIDATION: (at < starts) | (at >= ends), TEST: at < ends}
        for split, is_odd in odd.items():
            n = table.filter((pl.col(SPLIT) == split) & is_odd).height
            if n:
                found.append(f"{n:,} {split} rows of {name} lie outside the {split} window, so the cut leaks.")
    return found


def visible_targets(tables: Tables, corpus: Corpus) -> list[str]:
    """Test requests whose history, as the model reads it, holds an event that is not before the request."""
    is_test = corpus.split_R == SPLITS.index(TEST)
    stop = (corpus.user_start_R + corpus.visible_R)[is_test]
    asked = tables.requests.filter(pl.col(SPLIT) == TEST).select(REQUEST_ID, EVENT_TIME)
    has_events = corpus.visible_R[is_test] > 0
    times = tables.events[EVENT_TIME].to_physical().to_numpy()
    last = times[np.maximum(stop - 1, 0)] if times.size else np.zeros(stop.size)
    late = has_events & (last >= asked[EVENT_TIME].to_physical().to_numpy())
    found = []
    if late.any():
        example = asked[REQUEST_ID].to_numpy()[late][0]
        found.append(
            f"The history of {int(late.sum()):,} test requests reaches to or beyond the request, so a target can be "
            f"seen in it; for example request {example}."
        )
    past = _only_in_the_past(tables)
    if past.height:
        user, item, request = past.select(USER_ID, ITEM_ID, REQUEST_ID).row(0)
        found.append(
            f"{past.height:,} targets of test requests are visible in the history and happen at no later time; for "
            f"example item {item!r} of user {user!r} at request {request}."
        )
    return found


def _only_in_the_past(tables: Tables) -> pl.DataFrame:
    """Targets of test requests that no event at or after the request explains."""
    asked = tables.requests.filter(pl.col(SPLIT) == TEST).select(REQUEST_ID, USER_ID, at=EVENT_TIME)
    latest = tables.events.group_by(USER_ID, ITEM_ID).agg(latest=pl.col(EVENT_TIME).max())
    targets = tables.targets.join(asked, on=REQUEST_ID).join(latest, on=[USER_ID, ITEM_ID], how="inner")
    return targets.filter(pl.col("latest") < pl.col("at")).sort(REQUEST_ID, ITEM_ID)


def data_faults(examples: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], *, challenger: str) -> list[str]:
    """Why the manifests of models do not fit that of the examples they are judged on.

    The challenger must be made from these very examples. A champion may be made from older ones of the same data, but
    not from later ones: it would have learned what it is asked. So it would where its protocol held other events out,
    and what does not say where its data end may have.

    Args:
        examples: manifest of the examples.
        models: {model: its manifest}.
        challenger: which of them must be made from these examples.
    """
    found = []
    for model, manifest in models.items():
        if manifest["data"]["name"] != examples["data"]["name"]:
            found.append(
                f"the {model} was made from the data {manifest['data']['name']!r}, and is judged on "
                f"{examples['data']['name']!r}."
            )
        elif model == challenger and manifest["snapshot_id"] != examples["snapshot_id"]:
            found.append(
                f"the {model} was made from snapshot {manifest['snapshot_id'][:12]}, and is judged on "
                f"{examples['snapshot_id'][:12]}."
            )
        protocol, asked = (each["data"].get("protocol") for each in (manifest, examples))
        if protocol != asked:
            found.append(
                f"the {model} was made with the protocol {protocol!r}, and is judged with {asked!r}: it may have "
                "learned what it is asked."
            )
            continue
        for name in ("as_of", "test_from"):
            own, theirs = manifest.get(name), examples.get(name)
            if theirs and not own:
                found.append(f"the {model} does not say its {name}, so it may have learned what it is asked.")
                break
            if own and theirs and datetime.fromisoformat(own) > datetime.fromisoformat(theirs):
                found.append(f"the {model} was made from later data ({name} {own}) than it is judged on ({theirs}).")
                break
    return found


def unreadable(signals: Sequence[Signal], declared: Sequence[Signal]) -> list[str]:
    """Signals that a model reads and the examples do not hold, or hold otherwise: half a sentence each."""
    held = {signal.name: signal for signal in declared}
    return [f"{one.name}{wrong}" for one in signals if (wrong := _unlike(one, held.get(one.name)))]


def _unlike(signal: Signal, held: Signal | None) -> str:
    if held is None:
        return ", which is declared no more (declare it as retired(...) until another model is in service)"
    if signal.kind_in_words != held.kind_in_words:
        return f" as {signal.kind_in_words}, which in these data is {held.kind_in_words}"
    elsewhere = [maker for maker in signal.makers if maker not in held.makers]
    return f" for the {elsewhere[0]}, for which these data do not have it" if elsewhere else ""
