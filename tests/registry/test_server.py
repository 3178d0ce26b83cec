"""The registry may be an MLflow server, also on PostgreSQL, and may go away."""

import contextlib
import os
import subprocess
import sys
import time
import uuid

import pytest

from lrm.errors import RegistryError
from lrm.registry import backend
from lrm.registry.run import register_model, resolve, rollback, show
from tests import services
from tests.registry.conftest import NAME, promote_version, register_trained, write_trained


@contextlib.contextmanager
def server(store, root, *, port=0):
    """An MLflow server over a store; its address, and a function that ends it."""
    port = port or services.free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", store]
    log = (root / "server.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "mlflow", "server", *where, "--no-serve-artifacts"],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    running = services.Running(f"http://127.0.0.1:{port}", process.pid, root / "none")
    try:
        while not services.SERVICES["mlflow"].answers(running.address):
            assert process.poll() is None, (root / "server.log").read_text()[-1000:]
            time.sleep(0.1)
        yield running
    finally:
        log.close()
        services.stop(running)
        process.wait()


@pytest.fixture(scope="module")
def sqlite_store(migrated, tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    (root / "mlflow.db").write_bytes(migrated.read_bytes())
    return f"sqlite:///{root / 'mlflow.db'}", root


def walk(root, registry):
    """Register two versions, promote both, and roll back."""
    state = root / "state"
    promote_version(root, registry, register_trained(root, registry, "a", state=state), run_id="run-a")
    champion = resolve(registry, NAME)["bundle"]
    second = register_trained(root, registry, "b", state=state, champion=champion)
    promote_version(root, registry, second, run_id="run-b")
    assert resolve(registry, NAME)["version"] == "2"
    assert rollback(registry, NAME, reason="returns rose")["version"] == "1"
    held = show(registry, NAME)
    assert [(move["action"], move["version"]) for move in held["moves"]] == [
        ("promote", "1"),
        ("promote", "2"),
        ("rollback", "1"),
    ]
    assert (state / "artifacts/promotions" / f"{NAME}.jsonl").is_file()
    return held


def database_of(address):
    """A database of its own on a PostgreSQL server, as SQLAlchemy names it."""
    psycopg2 = pytest.importorskip("psycopg2", reason="there is no PostgreSQL client; pip install psycopg2-binary")
    name = f"mlflow_{uuid.uuid4().hex[:8]}"
    with contextlib.closing(psycopg2.connect(address)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"create database {name}")
    return address.replace("postgresql://", "postgresql+psycopg2://").removesuffix("/postgres") + f"/{name}"


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_server_keeps_versions_and_aliases_whatever_database_it_uses(database, sqlite_store, tmp_path):
    with contextlib.ExitStack() as stack:
        if database == "postgres":
            store = database_of(stack.enter_context(services.postgres()))
        else:
            store, _ = sqlite_store
        address = stack.enter_context(server(store, tmp_path)).address
        assert walk(tmp_path, address)["champion"] == "1"


def test_a_registry_that_goes_away_during_a_registration_is_named_and_a_second_run_completes(
    sqlite_store, tmp_path, monkeypatch
):
    """It goes away when the bundle has been logged and the version has not been made."""
    store, _ = sqlite_store
    model, evaluation = write_trained(tmp_path, "gone")
    told = {"name": "gone", "code_version": "c1", "run_id": "r", "validation": evaluation, "state": tmp_path / "state"}
    with server(store, tmp_path) as running:
        finish = backend.MlflowClient.finalize_logged_model

        def finish_and_leave(*args):
            finish(*args)
            services.stop(running)

        with monkeypatch.context() as patched:
            patched.setattr(backend.MlflowClient, "finalize_logged_model", finish_and_leave)
            with pytest.raises(
                RegistryError, match=r"the model registry failed to register: .*then run the same command"
            ):
                register_model(model, evaluation, tmp_path / "registered", registry=running.address, **told)
    with server(store, tmp_path) as running:
        told["registry"] = running.address
        done = register_model(model, evaluation, tmp_path / "registered", **told)
        assert (done["version"], done["is_new"]) == ("1", True)
        assert show(running.address, "gone")["challenger"] == "1"
