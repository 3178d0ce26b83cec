"""Rows of an online store: what is written last is what is read, and what is removed is gone.

Feast's own `write_to_online_store` leaves out a table whose values are all null, so that a correction to null never
arrives, and reads every value through pandas. Here values go to its store in the form that the store keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from lrm.features.declarations import View
from lrm.features.feast_repo import quiet
from lrm.features.sources import INSTANT_TYPE
from lrm.schema import BAG, CREATED_TIME, DENSE, EMBEDDING, EVENT_TIME, SPARSE
from lrm.storage import whole_file

_CHUNK = 10_000
"""Rows written in one transaction."""
REDIS, SQLITE, POSTGRES = "redis", "sqlite", "postgres"


def chunks(table: pl.DataFrame) -> list[pl.DataFrame]:
    """Parts of a table, each for one transaction."""
    return list(table.iter_slices(_CHUNK))


def write_rows(store: Any, view: View, rows: pl.DataFrame) -> None:
    """Write a view's values over whatever is kept of the same keys, nulls included.

    Args:
        store: one to which the view was applied.
        view: what is declared of it.
        rows: its keys, `event_time`, `created_time` and signals, as `read_view` gives them.
    """
    if rows.is_empty():
        return
    names = [signal.name for signal in view.signals]
    columns = [_values(rows[signal.name], signal.kind) for signal in view.signals]
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    times = _instants(rows[EVENT_TIME]), _instants(rows[CREATED_TIME])
    with quiet():
        if store.config.online_store.type == REDIS:
            store.config.online_store.skip_dedup = True  # else a value with the event_time of the kept one is skipped
        written = list(zip(_entity_keys(rows, view), values, *times, strict=True))
        store.provider.online_write_batch(store.config, _feature_view(store, view), written, None)


def remove_rows(store: Any, view: View, keys: pl.DataFrame) -> None:
    """Remove a view's values of some keys: from Redis without a trace, elsewhere they become null.

    Args:
        store: one to which the view was applied.
        view: what is declared of it.
        keys: its keys, and `event_time`, the instant from which on there are no values.
    """
    if store.config.online_store.type == REDIS:
        with quiet():
            _remove_from_redis(store, view, keys)
        return
    nothing = {signal.name: pl.lit(None) for signal in view.signals}
    write_rows(store, view, keys.with_columns(pl.col(EVENT_TIME).alias(CREATED_TIME), **nothing))


def note_written(lists: Path, view: View, rows: pl.DataFrame) -> None:
    """Add the keys of what is about to be written to the list of what the store holds of a view."""
    lists.mkdir(parents=True, exist_ok=True)
    keys = pl.concat([rows.select(view.keys), *_listed(lists, view, rows)]).unique()
    _write(keys, lists / f"{view.name}.parquet")


def forget_rest(store: Any, lists: Path, view: View, rows: pl.DataFrame, at: datetime) -> None:
    """Remove what the list names and `rows` do not hold, from the store and then from the list.

    Args:
        store: one to which the view was applied.
        lists: the folder of the lists.
        view: what is declared of it.
        rows: all that has a value.
        at: UTC instant from which on the rest has none.
    """
    keys = rows.select(view.keys)
    for listed in _listed(lists, view, rows):
        rest = listed.join(keys, on=view.keys, how="anti")
        for chunk in chunks(rest.with_columns(pl.lit(at).cast(INSTANT_TYPE).alias(EVENT_TIME))):
            remove_rows(store, view, chunk)
    _write(keys, lists / f"{view.name}.parquet")


def _listed(lists: Path, view: View, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """The list of a view, if there is one of the same keys."""
    path = lists / f"{view.name}.parquet"
    listed = [pl.read_parquet(path, glob=False)] if path.is_file() else []
    return [keys for keys in listed if keys.schema == rows.select(view.keys).schema]


def _write(keys: pl.DataFrame, path: Path) -> None:
    with whole_file(path) as partial:
        keys.write_parquet(partial)


def _remove_from_redis(store: Any, view: View, keys: pl.DataFrame) -> None:
    """Feast removes whole projects only, and looks at every key of the store for it."""
    from feast.infra.online_stores.helpers import _mmh3, _redis_key

    version = store.config.entity_key_serialization_version
    fields = [_mmh3(f"{view.name}:{signal.name}") for signal in view.signals]
    fields.append(f"_ts:{view.name}".encode())
    client = store.provider.online_store._get_client(store.config.online_store)
    with client.pipeline(transaction=False) as pipe:
        for key in _entity_keys(keys, view):
            pipe.hdel(_redis_key(store.project, key, entity_key_serialization_version=version), *fields)
        pipe.execute()


def _feature_view(store: Any, view: View) -> Any:
    return store.get_feature_view(view.name, allow_registry_cache=True)


def _instants(column: pl.Series) -> list[datetime]:
    """Polars converts by way of the local time, which the year 1 has not."""
    return [instant.replace(tzinfo=UTC) for instant in column.dt.replace_time_zone(None).to_list()]


def _entity_keys(rows: pl.DataFrame, view: View) -> list[Any]:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    columns = [
        [Value(string_val=key) if rows.schema[name] == pl.String else Value(int64_val=key) for key in rows[name]]
        for name in view.keys
    ]
    return [EntityKey(join_keys=view.keys, entity_values=values) for values in zip(*columns, strict=True)]


def _values(column: pl.Series, kind: str) -> Sequence[Any]:
    from feast.protos.feast.types.Value_pb2 import FloatList, StringList, Value

    form: dict[str, Callable[[Any], Any]] = {
        DENSE: lambda value: Value(float_val=value),
        SPARSE: lambda value: Value(string_val=value),
        BAG: lambda value: Value(string_list_val=StringList(val=value)),
        EMBEDDING: lambda value: Value(float_list_val=FloatList(val=value)),
    }
    return [Value() if value is None else form[kind](value) for value in column.to_list()]
