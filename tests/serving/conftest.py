"""One shop, retrieved, trained, registered, promoted, rolled out and served, for all tests of the room."""

import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lrm.serving.release import Release, read_release, write_release
from tests.serving.shop import write_shop

NAME = "shop"


class World(NamedTuple):
    root: Path
    data: Path
    feature_repo: Path
    examples: Path
    registry: str
    state: Path
    metrics: dict[str, Any]
    """What the roll-out of version 1 found."""

    @property
    def releases(self) -> Path:
        return self.state / "serving" / NAME

    @property
    def release(self) -> Release:
        return read_release((self.releases / "current").resolve())

    def asked(self, **changed: Any) -> dict[str, Any]:
        """What a roll-out is told."""
        told = {"registry": self.registry, "name": NAME, "data": self.data, "feature_repo": self.feature_repo}
        return told | {"state": self.state} | changed


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from lrm.features.run import retrieve_features
    from lrm.registry.run import promote_model
    from lrm.serving.run import roll_out
    from lrm.training.run import pretrain_token_factory, train_lrm

    root = tmp_path_factory.mktemp("shop")
    data, repo = write_shop(root)
    examples, state = root / "examples", root / "state"
    registry = f"sqlite:///{state}/mlflow.db"
    retrieve_features(data, repo, examples)
    pretrain_token_factory(examples, root / "factory", preset="tiny")
    train_lrm(examples, root / "factory", root / "model")
    version = register(root, registry, "1")
    promote_model(root / "promoted", registry=registry, name=NAME, version=version, run_id="run-1")
    world = World(root, data, repo, examples, registry, state, {})
    return world._replace(metrics=roll_out(examples, root / "rolled_out", **world.asked()))


def register(root: Path, registry: str, reason: str, *, name: str = NAME) -> str:
    """Register the trained model; another reason makes another version."""
    from lrm.registry.run import register_model

    judged = root / f"judged-{reason}"
    judged.mkdir(exist_ok=True)
    (judged / "statistics.json").write_text("{}")
    (judged / "evaluation.json").write_text(
        json.dumps({"format": 1, "verdict": "promote", "reasons": [reason], "models": {}})
    )
    done = register_model(
        root / "model",
        judged,
        root / f"registered-{reason}",
        registry=registry,
        name=name,
        code_version="c1",
        run_id=f"run-{reason}",
        validation=judged,
    )
    return str(done["version"])


@pytest.fixture(scope="session")
def address(world: World) -> Iterator[str]:
    """A real server of version 1, in a thread: roll_out has already started one as a process."""
    with serving(world.release) as address:
        yield address


@contextmanager
def serving(release: Release, **options: Any) -> Iterator[str]:
    """A real server of a release, in a thread."""
    from lrm.serving.http.server import Options, Server

    with running_server(Server(release, Options(**options))) as address:
        yield address


@contextmanager
def running_server(server: Any) -> Iterator[str]:
    """A real server in a thread."""
    import uvicorn

    from lrm.serving.http.listening import bound_sockets
    from lrm.serving.http.web_server import web_config
    from lrm.serving.staging.process import free_port, is_ready

    port = free_port()
    web_server = uvicorn.Server(web_config(server, host="127.0.0.1", port=port))
    address = f"http://127.0.0.1:{port}"
    with bound_sockets("127.0.0.1", port) as sockets:
        thread = threading.Thread(target=web_server.run, args=(sockets,))
        thread.start()
        while not is_ready(address):
            time.sleep(0.05)
        try:
            yield address
        finally:
            web_server.should_exit = True
            thread.join(10)


def copied(world: World, place: Path, *, version: str = "1") -> Release:
    """A copy of the release, for a test that changes it."""
    release = world.release._replace(folder=Path(shutil.copytree(world.release.folder, place)), version=version)
    write_release(release)
    return release


def ask(address: str, route: str, *, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any]:
    """Status and body of one answer."""
    content = json.dumps(body).encode() if body else None
    request = urllib.request.Request(
        f"{address}{route}", content, {"content-type": "application/json"} | (headers or {})
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
