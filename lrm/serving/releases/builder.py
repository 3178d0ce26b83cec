"""Build a release: a verified bundle, packed histories, and a fresh online store."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from lrm.config import from_json
from lrm.errors import ServingError
from lrm.features import store
from lrm.features.declarations import Declarations
from lrm.features.feast_repo import declarations
from lrm.features.join import point_in_time
from lrm.features.sources import INSTANT_TYPE, read_table, read_view
from lrm.features.tables import read_manifest
from lrm.registry import bundle as bundles
from lrm.schema import EVENT_TIME, EVENTS, HISTORY, ITEM_ID, REQUESTS, USER_ID, Signal, for_maker, read_signals
from lrm.serving.engine.histories import write_histories
from lrm.serving.engine.index_builder import with_index
from lrm.serving.release import (
    BUNDLE,
    FEATURE_REPO,
    HISTORIES,
    ITEMS,
    ONLINE,
    Release,
    new_folder,
    root_of,
    write_release,
)

WRITTEN = "online_keys"
"""Folder of what an online store on the network holds, beside the releases that share it."""
EXACT_UP_TO = 50_000
"""Items up to which a release has no index: there the exact product costs no more, and misses nothing."""


def build_release(
    bundle: Path,
    examples: Path,
    data: Path,
    feature_repo: Path,
    *,
    state: Path,
    name: str,
    version: str,
    online: Path | None = None,
    exact_up_to: int | None = EXACT_UP_TO,
) -> Release:
    """Build a release beside its place; nothing in service is touched.

    Args:
        bundle: the registered bundle.
        examples: folder of retrieve_features; its events become the histories, its items join the catalogue, its
            `as_of` is the instant of catalogue and store.
        data: the data folder.
        feature_repo: the declarations over it.
        state: the folder that holds `serving/`.
        name: the registered model.
        version: the registered version.
        online: a filled online store to copy; one with every entity is made where it is left out.
        exact_up_to: items of a catalogue that gets no index; None: none does.

    Raises:
        RegistryError: the bundle was tampered with.
        ServingError: the model was trained on a signal that the feature repo no longer declares so.
    """
    bundles.verify(bundle)
    signals = read_signals(bundle / "signals.json")
    declared = declarations(feature_repo, data)
    _require_readable(signals, declared, feature_repo)
    as_of = datetime.fromisoformat(read_manifest(examples)["as_of"])
    max_history = from_json((bundle / "config.json").read_text()).events_read
    folder = new_folder(root_of(state, name), version)
    shutil.copytree(bundle, folder / BUNDLE)
    bundles.verify(folder / BUNDLE)
    shutil.copytree(feature_repo, folder / FEATURE_REPO, ignore=shutil.ignore_patterns("__pycache__", "data"))
    item_ids = pl.concat(pl.read_parquet(held / ITEMS, columns=[ITEM_ID], glob=False) for held in (bundle, examples))
    catalogue = catalogue_at(as_of, item_ids, declared)  # a retired title is still shown
    catalogue.write_parquet(folder / ITEMS)
    write_histories(
        folder / HISTORIES, pl.read_parquet(examples / "events.parquet", glob=False), signals, max_history=max_history
    )
    if online is None:
        written = root_of(state, name) / WRITTEN
        store.materialise_online(feature_repo, data, as_of, state=folder / ONLINE, written=written)
    else:
        shutil.copytree(online, folder / ONLINE)
    release = Release(folder, name, version, as_of, key_types(data, declared))
    if exact_up_to is not None and catalogue.height > exact_up_to:
        release = with_index(release)
    return write_release(release)


def declared_for(signals: Sequence[Signal], feature_repo: Path, data: Path) -> Declarations:
    """The declarations, without the signals that were added after the model was trained.

    What is normal of a signal's values, and its description, may have changed since.

    Raises:
        ServingError: a signal that the model reads is no longer declared, or is declared to be read otherwise.
    """
    declared, names = declarations(feature_repo, data), {signal.name for signal in signals}
    _require_readable(signals, declared, feature_repo)
    views = tuple(view._replace(signals=tuple(s for s in view.signals if s.name in names)) for view in declared.views)
    return declared._replace(views=tuple(view for view in views if view.signals))


def _require_readable(signals: Sequence[Signal], declared: Declarations, feature_repo: Path) -> None:
    known = {signal.as_read for signal in declared.signals}
    lost = [signal.name for signal in signals if signal.as_read not in known]
    if lost:
        raise ServingError(
            f"the model reads {', '.join(lost)}, which {feature_repo} no longer declares as it was trained on; "
            "declare it so again, as retired(...), until a model without it is in service"
        )


def catalogue_at(instant: datetime, item_ids: pl.DataFrame, declared: Declarations) -> pl.DataFrame:
    """Every item once, in order, described as known at an instant: also items that came after training.

    Args:
        instant: UTC.
        item_ids: the column `item_id`; an item may be there twice.
        declared: the declarations, or those of one model from `declared_for`.

    Returns:
        `item_id` and the content signals, as `items.parquet` of the examples has them.
    """
    items = item_ids.unique().sort(ITEM_ID)
    at = items.with_columns(pl.lit(instant).cast(INSTANT_TYPE).alias(EVENT_TIME))
    described = [view._replace(signals=for_maker(view.signals, HISTORY)) for view in declared.joined]
    joined = [
        point_in_time(at, EVENT_TIME, view, read_view(view))
        for view in described
        if view.keys == (ITEM_ID,) and view.signals
    ]
    return pl.concat([items, *joined], how="horizontal")


def request_keys(declared: Declarations) -> tuple[str, ...]:
    """The join keys that a request brings: all but those of user and item."""
    keys = dict.fromkeys(key for view in declared.joined for key in view.keys)
    return tuple(key for key in keys if key not in (USER_ID, ITEM_ID))


def key_types(data: Path, declared: Declarations) -> dict[str, str]:
    """`int64` or `string` for each join key, as the data folder's events and requests have it."""
    events = pl.scan_parquet(data / f"{EVENTS}.parquet", glob=False).collect_schema()
    requests = pl.scan_parquet(data / f"{REQUESTS}.parquet", glob=False).collect_schema()
    held = {USER_ID: events[USER_ID], ITEM_ID: events[ITEM_ID]} | {key: requests[key] for key in request_keys(declared)}
    return {key: "string" if kind == pl.String else "int64" for key, kind in held.items()}


def last_requests(data: Path, declared: Declarations, *, as_of: datetime) -> pl.DataFrame:
    """Each user's last request before `as_of`: `user_id`, `event_time`, join keys and the request's own signals."""
    path = data / f"{REQUESTS}.parquet"
    table = read_table(
        path, keys=(USER_ID, *request_keys(declared)), times=(EVENT_TIME,), signals=declared.of_role(REQUESTS)
    )
    earlier = table.filter(pl.col(EVENT_TIME) < as_of).sort(EVENT_TIME, USER_ID)
    return earlier.unique(USER_ID, keep="last", maintain_order=True)
