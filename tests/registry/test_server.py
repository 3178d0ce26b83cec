"""The registry may be an MLflow server, also on PostgreSQL, and may go away."""

import contextlib
import os
import subprocess
import sys
import time
import uuid

import psycopg2
import pytest

from lrm.errors import RegistryError
from lrm.registry import backend
from lrm.registry.run import promote_model, register_model, resolve, rollback, show
from tests import services
from tests.registry.conftest import write_trained


@contextlib.contextmanager
def server(store, root):
    """An MLflow server over a store."""
    port = services.free_port()
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


def database_of(address):
    """A database of its own on a PostgreSQL server, as SQLAlchemy names it."""
    name = f"mlflow_{uuid.uuid4().hex[:8]}"
    with contextlib.closing(psycopg2.connect(address)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"create database {name}")
    return address.replace("postgresql://", "postgresql+psycopg2://").removesuffix("/postgres") + f"/{name}"


def walk(root, registry):
    """Register two versions, promote both and roll back; each look is one at the server."""
    name, state, made = f"walk-{uuid.uuid4().hex[:8]}", root / "state", {}
    for weights in "ab":
        model, evaluation = write_trained(root, weights)
        told = {"registry": registry, "name": name, "run_id": f"run-{weights}"}
        made = register_model(
            model, evaluation, root / "registered", **told, code_version="c1", validation=evaluation, state=state
        )
        promote_model(root / "promoted", **told, version=made["version"])
    assert resolve(registry, name)["version"] == made["version"] == "2"
    assert rollback(registry, name, reason="returns rose")["version"] == "1"
    held = show(registry, name)
    assert (held["champion"], held["challenger"]) == ("1", "2")
    assert [move["action"] for move in held["moves"]] == ["promote", "promote", "rollback"]
    assert (state / "artifacts/promotions" / f"{name}.jsonl").is_file()


def test_a_server_keeps_versions_and_aliases(tmp_path):
    with services.mlflow_server() as address:
        walk(tmp_path, address)


def test_a_server_on_postgresql_keeps_them_too(tmp_path):
    with services.postgres() as postgres, server(database_of(postgres), tmp_path) as running:
        walk(tmp_path, running.address)


def test_a_registry_that_goes_away_during_a_registration_is_named_and_a_second_run_completes(
    registry, tmp_path, monkeypatch
):
    """It goes away when the bundle has been logged and the version has not been made."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    model, evaluation = write_trained(tmp_path, "gone")
    told = {"name": "gone", "code_version": "c1", "run_id": "r", "validation": evaluation, "state": tmp_path / "state"}
    finish = backend.MlflowClient.finalize_logged_model
    with server(registry, tmp_path) as running, monkeypatch.context() as patched:

        def finish_and_leave(*args):
            finish(*args)
            services.stop(running)

        patched.setattr(backend.MlflowClient, "finalize_logged_model", finish_and_leave)
        with pytest.raises(RegistryError, match=r"the model registry failed to (register|tag): .*run the same command"):
            register_model(model, evaluation, tmp_path / "registered", registry=running.address, **told)
    done = register_model(model, evaluation, tmp_path / "registered", registry=registry, **told)  # the same rows
    assert (done["version"], done["is_new"]) == ("1", True)
    assert show(registry, "gone")["challenger"] == "1"
