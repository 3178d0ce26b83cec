"""A feature repo's definitions, and the Feast store that they stand in: what the other modules of the edge share.

Feast is the contract: its definitions say what a signal is, its online store serves it, and its own retrieval engine is
the yardstick that `join.py` is held against. `store.py` reads and writes signal values, `push.py` new events.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import DamagedError, SchemaError, StoreError
from lrm.features.declarations import Declarations, View, check
from lrm.schema import BAG, DENSE, EMBEDDING, ROLE, SPARSE, TAG_KIND, Signal, signal_from_tags

DATA_DIR = "LRM_DATA_DIR"
"""Environment variable by which a feature repo's sources find the data folder."""
YAML = "feature_store.yaml"
LOCKED_MS = 500
"""Milliseconds for which a local store that another process has locked is waited for, likewise."""

NOT_KEPT = float("-inf")
"""Instant of the values that are not there."""

_QUIET = threading.RLock()
"""Output and warnings are the process's, so one thread at a time may silence them."""


class Definitions(NamedTuple):
    """What a feature repo defines, as Feast's objects."""

    service: Any
    entities: list[Any]
    views: list[Any]


class LocalFile:
    """The file of an open local online store, which somebody may remove or replace."""

    def __init__(self, store: Any) -> None:
        """Remember the file as it is now."""
        self._store, self._path = store, Path(store.config.online_store.path)
        self._opened = _identity(self._path)

    def require(self, view: str) -> None:
        """Open it again, and make it where it is not there, if it is not the one that was opened.

        Feast keeps one connection for ever, which goes on with what is on no disk any more.

        Raises:
            StoreError: that was so; what it held is gone, and from now on it answers.
        """
        if _identity(self._path) == self._opened:
            return
        with answering(), quiet():
            online, config = self._store._get_provider().online_store, self._store.config
            online._conn.close()
            online._conn = None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            kept = [self._store.get_feature_view(view, allow_registry_cache=True)]
            online.update(config, [], kept, [], self._store.list_entities(allow_cache=True), partial=True)
            be_impatient(self._store)
        self._opened = _identity(self._path)
        raise StoreError(f"{self._path} was removed or replaced, and is opened again")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def be_impatient(store: Any) -> None:
    """Have a local online store wait for another's lock as long as one on the network is waited for."""
    connection = store._get_provider().online_store._get_conn(store.config)  # Feast waits for SQLite's usual 5 seconds
    connection.execute(f"PRAGMA busy_timeout = {LOCKED_MS}")


class Online(NamedTuple):
    """An open online store and what is declared about its views."""

    store: Any
    views: tuple[View, ...]
    """Those that are joined."""
    signals: tuple[Signal, ...]
    """Of all views."""
    events: Any
    """The store that takes new events: the same one, or a local one of its own."""
    events_file: LocalFile | None = None
    """Of a local one of its own."""


class Kept(NamedTuple):
    """What the online store keeps for one key of a view."""

    values: tuple[Any, ...]
    """In the order of the view's signals; None where there is no value."""
    seconds: float
    """Instant of the values, in seconds since 1970; `NOT_KEPT` where there are none."""
    is_damaged: bool = False
    """Whether any value was there and could not be read."""


def declarations(feature_repo: Path, data: Path) -> Declarations:
    """Read what the feature repo declares over a data folder.

    Raises:
        SchemaError: the repo cannot be read, has not exactly one feature service, or breaks a rule of `check`.
    """
    service, entities, defined = definitions(feature_repo, data)
    keys = {entity.name: entity.join_key for entity in entities}
    projections = {projection.name: projection for projection in service.feature_view_projections}
    views = tuple(_view(view, projections[view.name], keys) for view in service._features)
    check(views)
    left_out = tuple(view.name for view in defined if view.name not in projections)
    return Declarations(views, service.name, _version(views, service.name), left_out)


def definitions(feature_repo: Path, data: Path) -> Definitions:
    """Import what a feature repo defines.

    Raises:
        SchemaError: it cannot be read, or has not exactly one feature service.
    """
    from feast import Entity, FeatureService, FeatureView

    if not (feature_repo / YAML).is_file():
        raise SchemaError(f"{feature_repo / YAML} is missing; a feature repo is a folder such as feature_repo/")
    things = {id(thing): thing for module in _modules(feature_repo, data) for thing in vars(module).values()}.values()
    services, entities, views = (
        [thing for thing in things if isinstance(thing, kind)] for kind in (FeatureService, Entity, FeatureView)
    )
    if len(services) != 1:
        names = ", ".join(repr(service.name) for service in services) or "none"
        raise SchemaError(f"{feature_repo}: exactly one FeatureService is needed, got {names}; see services.py")
    return Definitions(services[0], entities, views)


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
        with quiet():
            return [importlib.import_module(name) for name in names]
    except SchemaError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        mine = [frame for frame in frames if Path(frame.filename).parent == feature_repo.resolve()]
        where = f"{feature_repo / Path(mine[-1].filename).name}, line {mine[-1].lineno}" if mine else str(feature_repo)
        raise SchemaError(f"{where}: its definitions do not load ({type(error).__name__}: {error})") from error
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


def take_key_types(entities: Sequence[Any], types: Mapping[str, pl.DataType]) -> None:
    """Give each entity the type that its join key has in the data: Feast takes a `large_string` for JSON."""
    from feast import ValueType

    for entity in entities:
        if entity.join_key in types:
            is_text = types[entity.join_key] == pl.String
            entity.value_type = ValueType.STRING if is_text else ValueType.INT64


def take_example_types(service: Any) -> None:
    """Give each signal the type that it has in the examples, whatever the `dtype` of its `Field`.

    Values are then stored and served as the model was trained on them: booleans as categories, numbers as a bag.
    """
    from feast.types import Array, Float32, String

    types = {DENSE: Float32, SPARSE: String, BAG: Array(String), EMBEDDING: Array(Float32)}
    for projection in service.feature_view_projections:
        for field in projection.features:  # the same objects as the view's own
            field.dtype = types[field.tags[TAG_KIND]]


def read_rows(store: Any, view: str, names: Sequence[str], rows: Sequence[Mapping[str, int | str]]) -> list[Kept]:
    """What an online store keeps of one view for each row of join keys.

    Raises:
        DamagedError: the value of some row cannot be parsed; the others can be read without it.
        StoreError: the store does not answer.
    """
    with answering(), quiet():
        answer = store.get_online_features(
            features=[f"{view}:{name}" for name in names], entity_rows=[dict(row) for row in rows]
        ).to_dict(include_event_timestamps=True)
    values = zip(*(answer[name] for name in names), strict=True)
    seconds = zip(*(answer[f"{name}__ts"] for name in names), strict=True)
    return [_kept(one, max(instants)) for one, instants in zip(values, seconds, strict=True)]


def _kept(values: tuple[Any, ...], seconds: int) -> Kept:
    """Feast says 0 of what is not there; of a value it may be the instant, 1970 itself."""
    is_there = seconds != 0 or any(value is not None for value in values)
    return Kept(values, float(seconds) if is_there else NOT_KEPT)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Tell whatever a store raises, each kind its own, as a StoreError."""
    from google.protobuf.message import DecodeError

    damage = (DecodeError, ValueError, OverflowError)  # the latter two: of an instant that cannot be
    try:
        yield
    except Exception as error:
        kind, seen = DamagedError if isinstance(error, damage) else StoreError, " ".join(str(error).split())
        raise kind(f"the online store does not answer ({type(error).__name__}: {seen})") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's deprecation notices and progress chatter off the terminal."""
    with _QUIET, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
