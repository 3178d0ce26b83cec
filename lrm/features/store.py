"""The feature store's edge: the one module that imports Feast.

Feast is the contract: its definitions say what a signal is, its online store serves it, and its own retrieval engine is
the yardstick that `join.py` is held against.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import SchemaError, ServingError
from lrm.features.declarations import Declarations, View, check
from lrm.features.join import latest
from lrm.features.sources import column_types, read_view
from lrm.progress import progress
from lrm.schema import EVENT_TIME, EVENTS, ROLE, USER_ID, signal_from_tags

DATA_DIR = "LRM_DATA_DIR"
"""Environment variable by which a feature repo's sources find the data folder."""
YAML = "feature_store.yaml"
FRESH = "fresh_events"
"""The push source of new events, and the view that it feeds: one value a user, all new events packed together."""
_ROW = "lrm_row"
_CHUNK = 10_000
"""Rows written to the online store in one transaction."""


_QUIET = threading.RLock()
"""Output and warnings are the process's, so one thread at a time may silence them."""


class Online(NamedTuple):
    """An open online store and what is declared about its views."""

    store: Any
    views: tuple[View, ...]
    events: Any
    """The store that takes new events: the same one, or a local one of its own."""


class Kept(NamedTuple):
    """What the online store keeps for one key of a view."""

    values: tuple[Any, ...]
    """In the order of the view's signals; None where there is no value."""
    seconds: float
    """Instant of the values, in seconds since 1970; 0 where there are none."""


def declarations(feature_repo: Path, data: Path) -> Declarations:
    """Read what the feature repo declares over a data folder.

    Raises:
        SchemaError: the repo cannot be read, has not exactly one feature service, or breaks a rule of `check`.
    """
    service, entities = _definitions(feature_repo, data)
    keys = {entity.name: entity.join_key for entity in entities}
    projections = {projection.name: projection for projection in service.feature_view_projections}
    views = tuple(_view(view, projections[view.name], keys) for view in service._features)
    check(views)
    return Declarations(views, service.name, _version(views, service.name))


def applied(feature_repo: Path, data: Path, state: Path) -> Any:
    """Register the definitions, and give the feature store that holds them.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        state: where a local registry and a local online store live; others are found through `feature_store.yaml`.
    """
    service, entities = _definitions(feature_repo, data)
    store = _store(feature_repo, state)
    with _quiet():
        store.apply([*entities, *service._features, service, *_fresh(entities, data)])
    return store


def retrieve(feature_repo: Path, data: Path, rows: pl.DataFrame, instant: str, view: View) -> pl.DataFrame:
    """`join.point_in_time`, answered by Feast's own engine."""
    signals = [signal.name for signal in view.signals]
    asked = rows.select(*view.keys, pl.col(instant).alias("event_timestamp")).with_row_index(_ROW)
    with tempfile.TemporaryDirectory() as state:
        store = applied(feature_repo, data, Path(state))
        with _quiet():
            answer = store.get_historical_features(
                entity_df=asked.drop_nulls(list(view.keys)).to_pandas(),
                features=[f"{view.name}:{name}" for name in signals],
                filter_by_created_timestamp=True,  # without it a correction is served before it was written
            ).to_arrow()
    found = pl.DataFrame(pl.from_arrow(answer)).select(_ROW, *signals).cast(column_types(view.signals))
    return asked.select(_ROW).join(found, on=_ROW, how="left", maintain_order="left").drop(_ROW)


def materialise_online(
    feature_repo: Path,
    data: Path,
    until: datetime,
    *,
    state: Path,
    only: Mapping[str, Sequence[int | str]] | None = None,
) -> dict[str, int]:
    """Write every joined view's values, as known at `until`, to the online store; return the rows of each view.

    Values that have expired by `until` are left out. Feast's own `materialize` would also write values created after
    `until`, which the offline join does not show. Writing the same values again changes nothing, so an interrupted call
    can be repeated.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        until: UTC instant.
        state: where a local registry and a local online store live; others are found through `feature_store.yaml`.
        only: the entities to write, by join key; a key that is left out is not restricted. All are written by default.
    """
    store = applied(feature_repo, data, state)
    values = {
        view.name: latest(view, _of(view, read_view(view), only or {}), until)
        for view in declarations(feature_repo, data).joined
    }
    chunks = [(name, chunk) for name, table in values.items() for chunk in table.iter_slices(_CHUNK)]
    for name, chunk in progress(chunks, what="materialise online", unit="chunk"):
        with _quiet():
            store.write_to_online_store(name, df=chunk.to_pandas())
    return {name: table.height for name, table in values.items()}


def _of(view: View, table: pl.DataFrame, only: Mapping[str, Sequence[int | str]]) -> pl.DataFrame:
    """The rows of the entities that are meant."""
    return table.filter(*(pl.col(key).is_in(list(only[key])) for key in view.keys if key in only))


def open_online(feature_repo: Path, data: Path, *, state: Path, events: Path | None = None) -> Online:
    """Open the online store that `materialise_online` filled.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        state: as it was filled.
        events: where a local store of new events lives, made where it is not there; None: new events go where the
            values are, as they do in any store that is not local.
    """
    store, declared = _store(feature_repo, state), declarations(feature_repo, data)
    is_local = store.config.online_store.type == "sqlite"
    taking = _events_store(feature_repo, data, events) if is_local and events is not None else store
    return Online(store, declared.joined, taking)


def read_kept(online: Online, view: View, rows: Sequence[Mapping[str, int | str]]) -> list[Kept]:
    """What is kept of one view for each of `rows`, which map its join keys to values; expired values included."""
    return _read(online.store, view.name, [signal.name for signal in view.signals], rows)


def lives_since(view: View, at: datetime) -> float:
    """The oldest instant, in seconds since 1970, whose values are within the view's time-to-live at `at`."""
    return float("-inf") if view.ttl is None else (at - view.ttl).timestamp()


def read_fresh(online: Online, user_ids: Sequence[int | str]) -> list[Kept]:
    """The packed new events of each user, as `push_fresh` wrote them.

    Raises:
        ServingError: the store was made by a version of this project that took no events.
    """
    _must_take_events(online)
    return _read(online.events, FRESH, [EVENTS], [{USER_ID: user_id} for user_id in user_ids])


def push_fresh(online: Online, user_id: int | str, packed: bytes, *, at: datetime) -> None:
    """Push a user's new events, all of them in place of those before.

    Args:
        online: from `open_online`.
        user_id: whose events.
        packed: bytes of the caller's own format.
        at: UTC instant; must be later, by the second, than that of the push before: some stores drop what is not.

    Raises:
        ServingError: the store takes no events.
    """
    import pandas as pd

    _must_take_events(online)
    row = {USER_ID: [user_id], EVENT_TIME: [pd.Timestamp(at)], EVENTS: [packed]}
    with _quiet():
        online.events.push(FRESH, pd.DataFrame(row))


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


def _read(store: Any, view: str, names: Sequence[str], rows: Sequence[Mapping[str, int | str]]) -> list[Kept]:
    with _quiet():
        answer = store.get_online_features(
            features=[f"{view}:{name}" for name in names], entity_rows=[dict(row) for row in rows]
        ).to_dict(include_event_timestamps=True)
    values = zip(*(answer[name] for name in names), strict=True)
    seconds = zip(*(answer[f"{name}__ts"] for name in names), strict=True)
    return [Kept(one, float(max(instants))) for one, instants in zip(values, seconds, strict=True)]


def _fresh(entities: Sequence[Any], data: Path) -> list[Any]:
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


def _events_store(feature_repo: Path, data: Path, folder: Path) -> Any:
    """A local store of new events alone; where there is none it is made aside, and appears whole."""
    if not folder.exists():
        _, entities = _definitions(feature_repo, data)
        users = [entity for entity in entities if entity.join_key == USER_ID]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch, folder.name)
            store = _store(feature_repo, made)
            with _quiet():
                store.apply([*users, *_fresh(users, data)])
            _rename(made, folder)
    return _store(feature_repo, folder)


def _rename(made: Path, folder: Path) -> None:
    """Give a folder its name, unless another process was quicker."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _must_take_events(online: Online) -> None:
    from feast.errors import FeatureViewNotFoundException

    try:
        online.store.get_feature_view(FRESH, allow_registry_cache=True)
    except FeatureViewNotFoundException as error:
        raise ServingError(
            "this release was made before events could be pushed; the step roll_out makes a new one: run `make run`"
        ) from error


def _definitions(feature_repo: Path, data: Path) -> tuple[Any, list[Any]]:
    """The one feature service and the entities of a feature repo."""
    from feast import Entity, FeatureService

    if not (feature_repo / YAML).is_file():
        raise SchemaError(f"{feature_repo / YAML} is missing; a feature repo is a folder such as feature_repo/")
    found = {id(thing): thing for module in _modules(feature_repo, data) for thing in vars(module).values()}
    services = [thing for thing in found.values() if isinstance(thing, FeatureService)]
    if len(services) != 1:
        names = ", ".join(repr(service.name) for service in services) or "none"
        raise SchemaError(f"{feature_repo}: exactly one FeatureService is needed, got {names}; see services.py")
    return services[0], [thing for thing in found.values() if isinstance(thing, Entity)]


def _modules(feature_repo: Path, data: Path) -> list[Any]:
    """Import a feature repo's modules, leaving no trace in `sys.modules`, so that another repo may use their names."""
    names = [path.stem for path in sorted(feature_repo.glob("*.py")) if path.stem != "__init__"]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    data_dir, no_bytecode = os.environ.get(DATA_DIR), sys.dont_write_bytecode
    sys.path.insert(0, str(feature_repo.resolve()))
    os.environ[DATA_DIR] = str(data.resolve())
    sys.dont_write_bytecode = True  # an edit within the same second would else run the old bytecode
    importlib.invalidate_caches()
    try:
        with _quiet():
            return [importlib.import_module(name) for name in names]
    except SchemaError:
        raise
    except Exception as error:
        raise SchemaError(f"{feature_repo}: its definitions do not load ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(str(feature_repo.resolve()))
        sys.dont_write_bytecode = no_bytecode
        os.environ.pop(DATA_DIR)
        if data_dir is not None:
            os.environ[DATA_DIR] = data_dir
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _view(view: Any, projection: Any, join_keys: Mapping[str, str]) -> View:
    source = view.batch_source
    signals = tuple(
        signal_from_tags(name=field.name, view=view.name, description=field.description, tags=field.tags)
        for field in projection.features
    )
    return View(
        name=view.name,
        role=view.tags.get(ROLE),
        keys=tuple(join_keys[entity] for entity in view.entities),
        ttl=view.ttl or None,
        path=Path(source.path),
        timestamp=source.timestamp_field,
        created=source.created_timestamp_column or None,
        signals=signals,
    )


def _version(views: tuple[View, ...], service: str) -> str:
    facts = [
        view._asdict()
        | {"path": view.path.name, "ttl": view.ttl and view.ttl.total_seconds()}
        | {"signals": [asdict(signal) for signal in view.signals]}
        for view in views
    ]
    return hashlib.sha256(json.dumps([service, facts]).encode()).hexdigest()


def _store(feature_repo: Path, state: Path) -> Any:
    from feast import FeatureStore
    from feast.repo_config import load_repo_config

    state.mkdir(parents=True, exist_ok=True)
    with _quiet():
        config = load_repo_config(feature_repo.resolve(), feature_repo / YAML)
        if config.registry.registry_type == "file" and "://" not in config.registry.path:
            config.registry.path = str(state.resolve() / "registry.db")
        if config.online_store.type == "sqlite":
            config.online_store.path = str(state.resolve() / "online.db")
        return FeatureStore(config=config)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's deprecation notices and progress chatter off the terminal."""
    with _QUIET, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
