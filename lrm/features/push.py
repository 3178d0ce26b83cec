"""New events, pushed through Feast: one value a user, all of a user's new events packed together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from lrm.errors import ServingError
from lrm.features.feast_repo import Kept, Online, answering, be_impatient, quiet, read_rows
from lrm.features.open_store import feature_store
from lrm.schema import EVENT_TIME, EVENTS, USER_ID

FRESH = "fresh_events"
"""The push source of new events, and the view that it feeds."""


class Pushed(NamedTuple):
    """A user's new events, as they are pushed."""

    user_id: int | str
    packed: bytes
    """Of the caller's own format."""
    at: datetime
    """UTC instant; must be later, by the second, than that of the push before: some stores drop what is not."""


def push_source(entities: Sequence[Any], data: Path) -> list[Any]:
    """The push source of new events and its view; nothing where no entity is keyed by the user."""
    from feast import FeatureView, Field, FileSource, PushSource
    from feast.types import Bytes

    users = [entity for entity in entities if entity.join_key == USER_ID]
    if not users:
        return []
    past = FileSource(name=f"{FRESH}_past", path=str(data / f"{EVENTS}.parquet"), timestamp_field=EVENT_TIME)
    source = PushSource(name=FRESH, batch_source=past)
    schema = [Field(name=EVENTS, dtype=Bytes)]
    return [source, FeatureView(name=FRESH, source=source, entities=users[:1], ttl=timedelta(0), schema=schema)]


def events_store(values: Any, feature_repo: Path, data: Path, folder: Path) -> Any:
    """A local store of new events alone, completed where it is not complete, which loses none of its events.

    Args:
        values: the store that keeps the values, which knows the type of the users' key.
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        folder: where the events are kept.
    """
    store = feature_store(feature_repo, folder)
    if not _takes_events(store):
        with quiet():
            users = [entity for entity in values.list_entities(allow_cache=True) if entity.join_key == USER_ID]
            store.apply([*users, *push_source(users, data)])
    be_impatient(store)
    return store


def read_fresh(online: Online, user_ids: Sequence[int | str]) -> list[Kept]:
    """The packed new events of each user, as `push_fresh` wrote them.

    Raises:
        ServingError: the store was made by a version of this project that took no events.
        StoreError: it does not answer.
    """
    _must_take_events(online)
    _must_be_the_same(online)
    return read_rows(online.events, FRESH, [EVENTS], [{USER_ID: user_id} for user_id in user_ids])


def push_fresh(online: Online, pushed: Sequence[Pushed]) -> None:
    """Push the new events of some users in one write, all of a user's in place of those before.

    Args:
        online: from `open_online`.
        pushed: a user at most once.

    Raises:
        ServingError: the store takes no events.
        StoreError: it does not answer; whether it took them is not known, and to push them again does no harm.
    """
    import pandas as pd

    _must_take_events(online)
    _must_be_the_same(online)
    rows = {
        USER_ID: [one.user_id for one in pushed],
        EVENT_TIME: [pd.Timestamp(one.at) for one in pushed],
        EVENTS: [one.packed for one in pushed],
    }
    with answering(), quiet():
        online.events.push(FRESH, pd.DataFrame(rows))


def _takes_events(store: Any) -> bool:
    from feast.errors import FeatureViewNotFoundException

    try:
        store.get_feature_view(FRESH, allow_registry_cache=True)
    except FeatureViewNotFoundException:
        return False
    return True


def _must_take_events(online: Online) -> None:
    if not _takes_events(online.store):
        raise ServingError(
            "this release was made before events could be pushed; the step roll_out makes a new one: run `make run`"
        )


def _must_be_the_same(online: Online) -> None:
    if online.events_file is not None:
        online.events_file.require(FRESH)
