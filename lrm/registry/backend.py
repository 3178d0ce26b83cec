"""The one edge to MLflow: versions, aliases and artifacts.

The registry is a SQLite file or an MLflow server, whatever that keeps its rows in. Every call goes through a client
that is bound to one of them, so nothing here depends on MLflow's process-wide settings.
Importing this module imports MLflow, which takes seconds: doors do it inside.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlparse
from urllib.request import url2pathname

from lrm.errors import RegistryError
from lrm.registry.address import path_of

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # seconds of a server's absence, not minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints while it is imported
    import mlflow.pyfunc

import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.store.entities.paged_list import PagedList
from sqlalchemy.exc import SQLAlchemyError

P = ParamSpec("P")
T = TypeVar("T")
LEDGER = "ledger"
"""Tag of a registered model: the folder or bucket in which its moves are written down."""
CHAMPION, CHALLENGER = "champion", "challenger"
LOADER = "lrm.serving.pyfunc"
"""The module that MLflow imports to load a version as a Python function."""
DATA = "data/bundle"
"""Where the bundle lies inside a version's artifact."""
ABSENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Error codes for a name that stands for nothing, whether it might or could not."""
THERE = "RESOURCE_ALREADY_EXISTS"
"""Error code for a name that is taken."""
LONGEST_PARAM = 6000
PAGE = 1000
"""Rows that one search brings: the most that every store allows."""


class Registry(NamedTuple):
    """One store and one registered model in it."""

    client: MlflowClient
    name: str
    home: Path | None
    """The folder that holds the store, its artifacts and the promotion ledger; None where the registry is a server."""


class Version(NamedTuple):
    """One immutable version."""

    version: str
    source: str
    tags: Mapping[str, str]


def clearly(call: Callable[P, T]) -> Callable[P, T]:
    """Say in a registry error what went wrong between here and the registry."""

    @functools.wraps(call)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            seen = " ".join(str(error).split())[:400]
            raise RegistryError(
                f"the model registry failed to {call.__name__.replace('_', ' ')}: {seen}; see that it is there, whole "
                "and writable, then run the same command again: it goes on where this one stopped"
            ) from error

    return run


@clearly
def connect(registry: str, name: str) -> Registry:
    """Open a store, and make it on first use where it is a file.

    Raises:
        RegistryError: the registry is not named as `path_of` says, or the file cannot be opened.
    """
    path = path_of(registry)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if path is not None and not path.is_file():
        _make_store(path)
    return Registry(_client(_address(path) if path else registry), name, path.parent if path else None)


def _make_store(path: Path) -> None:
    """Make a store beside its place and give it its name when it is whole: no other process ever opens half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            return
        print(f"model registry: making {path} (once, up to half a minute)", file=sys.stderr, flush=True)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            partial = Path(scratch, "partial.db")
            _client(_address(partial))
            partial.replace(path)
        print(f"model registry: ready after {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def _client(uri: str) -> MlflowClient:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's models use what SQLAlchemy 2.1 deprecates
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _address(path: Path) -> str:
    """How SQLAlchemy names a SQLite file, whatever its path holds.

    With the driver in its name, MLflow does not take the escaped path for one to make folders of.
    """
    escaped = str(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite+pysqlite:///{escaped}"


@clearly
def names(registry: Registry) -> list[str]:
    """The registered models of a store."""
    return sorted(model.name for model in _all(registry.client.search_registered_models))


@clearly
def versions(registry: Registry) -> list[Version]:
    """All versions of the model, oldest first; none when there is no such model."""
    asked = {"filter_string": f"name='{registry.name}'", "order_by": ["version_number ASC"]}
    return [_version(made) for made in _all(registry.client.search_model_versions, **asked)]


@clearly
def version(registry: Registry, number: str) -> Version:
    """One version.

    Raises:
        RegistryError: there is no such version.
    """
    try:
        one = _version(registry.client.get_model_version(registry.name, number))
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
    else:
        if one.version == number:
            return one
    known = ", ".join(one.version for one in versions(registry)) or "none"
    raise RegistryError(f"{registry.name} has no version {number!r}; its versions are: {known}")


@clearly
def alias(registry: Registry, alias_name: str) -> str:
    """The version that an alias names, "" when it names none."""
    try:
        return str(registry.client.get_model_version_by_alias(registry.name, alias_name).version)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return ""
        raise


@clearly
def move_alias(registry: Registry, alias_name: str, number: str) -> None:
    """Make an alias name a version."""
    registry.client.set_registered_model_alias(registry.name, alias_name, number)


@clearly
def tag(registry: Registry, key: str) -> str:
    """A tag of the registered model, "" where it has none or is not there."""
    model = _find_model(registry)
    return str(model.tags.get(key, "")) if model else ""


@clearly
def set_tag(registry: Registry, key: str, value: str) -> None:
    """Set a tag of the registered model, which is made on first use."""
    _make_model(registry)
    registry.client.set_registered_model_tag(registry.name, key, value)


def bundle_of(one: Version) -> Path:
    """The folder of a version's bundle, which never changes once it is registered.

    Raises:
        RegistryError: the artifact is gone.
    """
    folder = local_path(one.source) / DATA
    if not folder.is_dir():
        raise RegistryError(
            f"the artifact of version {one.version} is gone: {folder} is no folder. `prune --older-than` takes the "
            "files of versions that left service long ago; restore it from a copy, or put another version in service"
        )
    return folder


def local_path(uri: str) -> Path:
    """The folder that a `file:` address names."""
    return Path(url2pathname(urlparse(uri).path))


@clearly
def register(
    registry: Registry,
    bundle: Path,
    *,
    signature: Mapping[str, Any],
    example: Mapping[str, Any],
    requirements: list[str],
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    artifacts: Path,
) -> Version:
    """Log a bundle with what is known of it, and make it the next version.

    What a call leaves that fails half-way is no version; a later call makes one of its own.
    """
    client = registry.client
    run = client.create_run(_experiment(registry, artifacts), run_name=tags["run_id"] or None)
    now = int(time.time() * 1000)
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key.replace("@", "_at_"), value, now, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    logged = client.create_logged_model(run.info.experiment_id, registry.name, run.info.run_id, dict(tags))
    folder = bundle.with_name(f".{bundle.name}.mlflow")
    shutil.rmtree(folder, ignore_errors=True)
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=LOADER,
        data_path=str(bundle),
        signature=ModelSignature.from_dict({side: json.dumps(columns) for side, columns in signature.items()}),
        input_example=_as_frame(example, signature["inputs"]),
        pip_requirements=requirements,
        mlflow_model=Model(model_id=logged.model_id, run_id=run.info.run_id, metadata=dict(tags)),
    )
    client.log_model_artifacts(logged.model_id, str(folder))
    shutil.rmtree(folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.set_terminated(run.info.run_id)
    _make_model(registry)
    made = client.create_model_version(
        registry.name, logged.artifact_location, run.info.run_id, tags=dict(tags), model_id=logged.model_id
    )
    return _version(made)


def _as_frame(example: Mapping[str, Any], inputs: list[dict[str, Any]]) -> pd.DataFrame:
    """One row; its numbers in float32 where the signature says so, because MLflow does not narrow them itself."""
    return pd.DataFrame([example]).astype({one["name"]: "float32" for one in inputs if one["type"] == "float"})


def _make_model(registry: Registry) -> None:
    if _find_model(registry) is None:
        _unless_there(registry.client.create_registered_model, registry.name)


def _find_model(registry: Registry) -> RegisteredModel | None:
    try:
        return registry.client.get_registered_model(registry.name)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def _all(search: Callable[..., PagedList[T]], **asked: Any) -> Iterator[T]:
    """What a search finds, page after page: the client's lists end with their first."""
    token = None
    while True:
        page = search(**asked, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _experiment(registry: Registry, artifacts: Path) -> str:
    """The experiment of the model's runs."""
    found = registry.client.get_experiment_by_name(registry.name)
    if found is not None:
        return str(found.experiment_id)
    _unless_there(registry.client.create_experiment, registry.name, artifacts.absolute().as_uri())
    return _experiment(registry, artifacts)


def _unless_there(create: Callable[..., Any], *asked: Any) -> None:
    """Create what another run may have created since it was looked for."""
    try:
        create(*asked)
    except MlflowException as error:
        if error.error_code != THERE:
            raise


def _version(made: Any) -> Version:
    return Version(str(made.version), str(made.source), dict(made.tags))
