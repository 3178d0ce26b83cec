"""Open the Feast store that a feature repo's `feature_store.yaml` names, and say in words what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lrm.errors import SchemaError
from lrm.features.feast_repo import YAML, quiet

IMPATIENT = {"socket_timeout": "0.5", "socket_connect_timeout": "0.5", "retry": "null"}
"""Of a store on the network that is asked while somebody waits, where its `connection_string` does not say otherwise:
seconds, and no further try. Without them a store that hangs is waited for without end."""
SCRATCH = "scratch_project"
"""File of a copied feature repo: the name of a project of its own, whose rows are apart from all others."""
SCRATCH_SECONDS = 6 * 3600
"""How long what a scratch project wrote to Redis is kept, where nobody came to remove it."""


def feature_store(feature_repo: Path, state: Path, *, is_impatient: bool = False, is_offline: bool = False) -> Any:
    """The store of a feature repo, its local parts in `state`; nothing is registered.

    Args:
        feature_repo: the folder of definitions.
        state: where a local registry and a local online store live.
        is_impatient: whether somebody waits for each answer.
        is_offline: whether registry and online store are local, whatever `feature_store.yaml` says.

    Raises:
        SchemaError: `feature_store.yaml` cannot be used.
    """
    from feast import FeatureStore

    state.mkdir(parents=True, exist_ok=True)
    with quiet(), _usable(feature_repo / YAML):
        config = _config(feature_repo, is_offline=is_offline)
        if config.registry.registry_type == "file" and "://" not in config.registry.path:
            config.registry.path = str(state.resolve() / "registry.db")
            config.registry.cache_ttl_seconds = 0  # for ever: a release does not change, and its folder may be removed
        if config.online_store.type == "sqlite":
            config.online_store.path = str(state.resolve() / "online.db")
            _sqlite_in_utc()
        if config.online_store.type == "redis" and is_impatient:
            config.online_store.connection_string = _impatient(config.online_store.connection_string)
            config.online_store.skip_dedup = (
                True  # else a push first parses what is kept, and fails where it is damaged
            )
        if config.online_store.type == "redis" and (feature_repo / SCRATCH).is_file():
            config.online_store.key_ttl_seconds = SCRATCH_SECONDS
        store = FeatureStore(config=config)
        assert store.provider  # imports what the store is reached with
        return store


def _sqlite_in_utc() -> None:
    """Keep instants by UTC: Feast takes them for local ones, so that one zone reads what another wrote hours off."""
    import sqlite3

    import feast.infra.online_stores.sqlite  # noqa: F401 - it says otherwise when it is first imported

    since = datetime(1970, 1, 1, tzinfo=UTC)
    sqlite3.register_adapter(datetime, lambda at: int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() // 1))
    sqlite3.register_converter("timestamp", lambda text: since + timedelta(seconds=int(text)))


@contextlib.contextmanager
def closing_store(store: Any) -> Iterator[Any]:
    """Close an online store's connections after the block; it opens new ones where it is asked again."""
    try:
        yield store
    finally:
        held = store.provider.online_store
        for name in ("_conn", "_conn_pool", "_client"):
            if getattr(held, name, None) is not None:
                getattr(held, name).close()
                setattr(held, name, None)


def _config(feature_repo: Path, *, is_offline: bool) -> Any:
    """What `feature_store.yaml` says, as Feast reads it; a scratch project has a name and a registry of its own."""
    import yaml
    from feast.repo_config import RepoConfig

    said = yaml.safe_load(os.path.expandvars((feature_repo / YAML).read_text()))
    if not isinstance(said, dict):
        raise ValueError(f"it must hold keys such as project and online_store, got {type(said).__name__}")
    unset = sorted({name for text in _texts(said) for name in re.findall(r"\$\{(\w+)\}", text)})
    if unset:
        raise ValueError(f"the environment variable {', '.join(unset)} is not set")
    scratch = feature_repo / SCRATCH
    if scratch.is_file():
        said["project"] = scratch.read_text()
    if scratch.is_file() or is_offline:
        said["registry"] = "registry.db"
    if is_offline:
        said["online_store"] = {"type": "sqlite"}
    config = RepoConfig(**said)
    config.repo_path = feature_repo.resolve()
    return config


def _texts(said: Any) -> Iterator[str]:
    """Every text in a YAML file."""
    if isinstance(said, dict | list):
        for value in said.values() if isinstance(said, dict) else said:
            yield from _texts(value)
    elif isinstance(said, str):
        yield said


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Tell whatever is wrong with a `feature_store.yaml`, or missing for it, as a SchemaError."""
    try:
        yield
    except Exception as error:
        raise SchemaError(
            f"{path} cannot be used ({_in_words(error)}); mend it, or install what it asks for"
        ) from error


def _in_words(error: Exception) -> str:
    """What an error says, on one line."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        found = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors()]
        return "; ".join(": ".join(filter(None, one)) for one in found)
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    root: BaseException = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__  # type: ignore[assignment]
    because = f": {root}" if isinstance(root, ImportError) else ""
    return kind + " ".join(f"{error}{because}".split())


def _impatient(connection: str) -> str:
    """A connection string, as Feast reads it, with what it does not say of waiting."""
    said = {part.partition("=")[0] for part in connection.split(",")}
    return ",".join([connection, *(f"{name}={value}" for name, value in IMPATIENT.items() if name not in said)])
