"""Each service is the real one: it is asked for something that only it can answer."""

import contextlib
import os
import urllib.request
import uuid
from pathlib import Path

import psycopg2
import pytest

from tests import services


def test_redis_keeps_a_value():
    from redis import Redis

    with services.redis() as address, Redis.from_url(address) as client:
        key = f"test-{uuid.uuid4().hex}"
        client.set(key, "7", ex=60)
        assert client.get(key) == b"7"


def test_postgres_counts():
    with services.postgres() as address, contextlib.closing(psycopg2.connect(address)) as connection:
        cursor = connection.cursor()
        cursor.execute("select sum(n) from generate_series(1, 4) as n")
        assert cursor.fetchone() == (10,)


def test_a_bucket_keeps_an_object_once_where_asked_to_write_it_only_as_the_first(monkeypatch):
    from google.api_core.exceptions import PreconditionFailed
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    with services.gcs() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        client = storage.Client(project="test", credentials=AnonymousCredentials())
        blob = client.create_bucket(f"bucket-{uuid.uuid4().hex}").blob("a")
        blob.upload_from_string(b"first", if_generation_match=0)
        with pytest.raises(PreconditionFailed):
            blob.upload_from_string(b"second", if_generation_match=0)
        assert blob.download_as_bytes() == b"first"
        client.close()


def test_an_mlflow_server_knows_its_version():
    with services.mlflow_server() as address, urllib.request.urlopen(f"{address}/version") as answer:
        assert answer.read().decode().startswith("3.")


@pytest.mark.parametrize(
    ("service", "told"),
    [(services.redis, "no redis-server; install one"), (services.postgres, "no PostgreSQL server;")],
)
def test_a_service_that_cannot_be_had_skips_with_the_reason_and_fails_where_it_is_required(service, told, monkeypatch):
    monkeypatch.setattr(services, "LEFT", Path("/nowhere"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(services, "IS_REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match=told), service():
        pass
    monkeypatch.setattr(services, "IS_REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match=f"LRM_SERVICES=required, but there is {told}"):
        service().__enter__()


def test_a_service_whose_program_is_here_and_does_not_work_is_no_reason_to_skip(tmp_path, monkeypatch):
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no memory >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(services, "LEFT", Path("/nowhere"))
    monkeypatch.setattr(services, "IS_REQUIRED", False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(services.Broken, match="redis did not start; the end of its log: no memory"), services.redis():
        pass


def test_what_is_running_is_read_from_the_file_that_make_services_wrote(tmp_path, monkeypatch):
    left = tmp_path / "services.env"
    left.write_text("LRM_TEST_GCS=http://127.0.0.1:9\nLRM_TEST_GCS_PROCESS=12\nLRM_TEST_GCS_FOLDER=/tmp/x\n")
    monkeypatch.setattr(services, "LEFT", left)
    assert services.running() == {"gcs": services.Running("http://127.0.0.1:9", 12, Path("/tmp/x"))}


def test_a_service_ends_with_its_block_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr(services, "LEFT", Path("/nowhere"))
    started = services.start_or_skip("redis")
    assert services.SERVICES["redis"].answers(started.address)
    services.stop(started)
    assert not services.SERVICES["redis"].answers(started.address)
    assert not started.folder.exists()
