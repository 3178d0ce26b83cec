"""Signal values in Feast: what its own engine retrieves of the past, and what its online store keeps for serving."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from lrm.errors import ServingError
from lrm.features.declarations import View
from lrm.features.feast_repo import (
    Kept,
    LocalFile,
    Online,
    answering,
    be_impatient,
    declarations,
    definitions,
    quiet,
    read_rows,
    take_example_types,
    take_key_types,
)
from lrm.features.join import latest
from lrm.features.online_rows import SQLITE, chunks, forget_rest, note_written, write_rows
from lrm.features.open_store import closing_store, feature_store
from lrm.features.push import events_store, push_source
from lrm.features.sources import column_types, in_one_form, key_types, read_view
from lrm.progress import progress

_ROW = "lrm_row"


def applied(feature_repo: Path, data: Path, state: Path, *, is_offline: bool = False) -> Any:
    """Register the definitions, and give the feature store that holds them.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        state: where a local registry and a local online store live; others are found through `feature_store.yaml`.
        is_offline: whether registry and online store are local all the same.

    Raises:
        SchemaError: the repo or its `feature_store.yaml` cannot be used.
        StoreError: the registry or the online store does not answer.
    """
    service, entities, _ = definitions(feature_repo, data)
    take_example_types(service)
    take_key_types(entities, key_types(declarations(feature_repo, data).views))
    store = feature_store(feature_repo, state, is_offline=is_offline)
    with answering(), quiet():
        store.apply([*entities, *service._features, service, *push_source(entities, data)])
    return store


def retrieve(feature_repo: Path, data: Path, rows: pl.DataFrame, instant: str, view: View) -> pl.DataFrame:
    """`join.point_in_time`, answered by Feast's own engine."""
    signals = [signal.name for signal in view.signals]
    asked = rows.select(*view.keys, pl.col(instant).alias("event_timestamp")).with_row_index(_ROW)
    with tempfile.TemporaryDirectory() as state:
        store = applied(feature_repo, data, Path(state), is_offline=True)
        with quiet():
            answer = store.get_historical_features(
                entity_df=asked.drop_nulls(list(view.keys)).to_pandas(),
                features=[f"{view.name}:{name}" for name in signals],
                filter_by_created_timestamp=True,  # without it a correction is served before it was written
            ).to_arrow()
    found = pl.DataFrame(pl.from_arrow(answer)).select(_ROW, *signals).cast(column_types(view.signals))
    found = found.with_columns(in_one_form(pl.col(signal.name), signal.kind) for signal in view.signals)
    return asked.select(_ROW).join(found, on=_ROW, how="left", maintain_order="left").drop(_ROW)


def materialise_online(
    feature_repo: Path,
    data: Path,
    until: datetime,
    *,
    state: Path,
    only: Mapping[str, Sequence[int | str]] | None = None,
    written: Path | None = None,
) -> dict[str, int]:
    """Write every joined view's values, as known at `until`, to the online store; return the rows of each view.

    Values that have expired by `until` are left out. Feast's own `materialize` would also write values created after
    `until`, which the offline join does not show. What is written last counts, whatever its `event_time`; writing the
    same values again changes nothing, so an interrupted call can be repeated.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        until: UTC instant.
        state: where a local registry and a local online store live; others are found through `feature_store.yaml`.
        only: the entities to write, by join key; a key that is left out is not restricted. All are written by default.
        written: where a list is kept of what a store on the network holds: what it names and is not written this time
            is removed. None: nothing is.

    Raises:
        SchemaError: the repo or its `feature_store.yaml` cannot be used.
        StoreError: the registry or the online store does not answer.
    """
    store = applied(feature_repo, data, state)
    views = declarations(feature_repo, data).joined
    values = {view.name: latest(view, _of(view, read_view(view), only or {}), until) for view in views}
    lists = None if store.config.online_store.type == SQLITE else written
    work = [(view, chunk) for view in views for chunk in chunks(values[view.name])]
    with answering(), closing_store(store):
        if lists is not None:
            for view in views:
                note_written(lists, view, values[view.name])
        for view, chunk in progress(work, what="materialise online", unit="chunk"):
            write_rows(store, view, chunk)
        if lists is not None:
            for view in views:
                forget_rest(store, lists, view, values[view.name], until)
    return {name: table.height for name, table in values.items()}


def _of(view: View, table: pl.DataFrame, only: Mapping[str, Sequence[int | str]]) -> pl.DataFrame:
    """The rows of the entities that are meant."""
    return table.filter(*(pl.col(key).is_in(list(only[key])) for key in view.keys if key in only))


def open_online(feature_repo: Path, data: Path, *, state: Path, events: Path | None = None) -> Online:
    """Open the online store that `materialise_online` filled, to be asked while somebody waits.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        state: as it was filled.
        events: where a local store of new events lives, made where it is not there; None: new events go where the
            values are, as they do in any store that is not local.
    """
    store, declared = feature_store(feature_repo, state, is_impatient=True), declarations(feature_repo, data)
    is_local = store.config.online_store.type == SQLITE
    if is_local:
        be_impatient(store)
    if not is_local or events is None:
        return Online(store, declared.joined, declared.signals, store)
    taking = events_store(store, feature_repo, data, events)
    return Online(store, declared.joined, declared.signals, taking, LocalFile(taking))


def read_kept(online: Online, view: View, rows: Sequence[Mapping[str, int | str]]) -> list[Kept]:
    """What is kept of one view for each of `rows`, which map its join keys to values; expired values included."""
    return read_rows(online.store, view.name, [signal.name for signal in view.signals], rows)


def lives_since(view: View, at: datetime) -> float:
    """The oldest instant, in seconds since 1970, whose values are within the view's time-to-live at `at`."""
    return float("-inf") if view.ttl is None else at.timestamp() - view.ttl.total_seconds()


def read_online(online: Online, rows: Sequence[Mapping[str, int | str]], at: datetime) -> pl.DataFrame:
    """The online values of the views whose keys the rows hold.

    Feast serves a value for ever; here one older than its view's time-to-live at `at` is null, as it is offline. The
    store keeps instants to the second.

    Args:
        online: from `open_online`.
        rows: one mapping of join key to value for each row, all with the same keys.
        at: UTC instant of the request.

    Returns:
        One row for each of `rows`, one column for each signal of those views, in the types of docs/artifacts.md.

    Raises:
        ServingError: no view can be read by these keys.
    """
    held = set(rows[0]) if rows else set()
    views = [view for view in online.views if set(view.keys) <= held]
    if not views:
        declared = "; ".join(f"{view.name} by {', '.join(view.keys)}" for view in online.views)
        raise ServingError(f"no view can be read by the keys {sorted(held)}; the feature repo declares {declared}")
    return pl.concat([_online_values(online, view, rows, at) for view in views], how="horizontal")


def _online_values(online: Online, view: View, rows: Sequence[Mapping[str, int | str]], at: datetime) -> pl.DataFrame:
    kept = read_kept(online, view, [{key: row[key] for key in view.keys} for row in rows])
    oldest, nothing = lives_since(view, at), (None,) * len(view.signals)
    values = [one.values if one.seconds >= oldest else nothing for one in kept]
    return pl.DataFrame(values, schema=column_types(view.signals), strict=False, orient="row")
