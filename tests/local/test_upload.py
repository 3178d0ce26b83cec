"""A run's copy in a bucket (fake-gcs-server), through a network that fails."""

import json
import os
import uuid

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from local import run_layout
from local.upload import check_address, upload
from lrm.errors import UploadError
from pipeline import main
from tests import services
from tests.proxy import proxy

PIECE = 256 * 1024
WEIGHTS = os.urandom(5 * PIECE)


@pytest.fixture(scope="module")
def server():
    with services.gcs() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket, seen without the proxy."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    client = storage.Client(project="test", credentials=AnonymousCredentials())
    yield client.create_bucket(f"copies-{uuid.uuid4().hex}")
    client.close()


@pytest.fixture
def network(server, bucket, monkeypatch):
    """A proxy through which uploads go."""
    with proxy(server) as made:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", made.address)
        yield made


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "runs" / "20260101T000000-0001"
    folder.mkdir(parents=True)
    for name in ("report.html", "summary.json", "run_manifest.json"):
        (folder / name).write_text(f"content of {name}")
    bundle = run_layout.artifacts_of(folder) / "token-factory-x/register-model/registered/bundle"
    bundle.mkdir(parents=True)
    (bundle / "weights.safetensors").write_bytes(WEIGHTS)
    (bundle / "bundle.json").write_text("{}")
    return folder


def copied(bucket):
    return {blob.name.removeprefix("kept/20260101T000000-0001/"): blob for blob in bucket.list_blobs()}


def send(run_dir, bucket):
    return upload(run_dir, f"gs://{bucket.name}/kept", piece_bytes=PIECE, patience_seconds=3.0)


def test_a_copy_holds_the_report_the_manifest_and_the_bundle_and_a_list_with_checksums(run_dir, bucket, capsys):
    assert send(run_dir, bucket) == f"gs://{bucket.name}/kept/{run_dir.name}"
    found = copied(bucket)
    files = {"report.html", "summary.json", "run_manifest.json", "bundle/weights.safetensors", "bundle/bundle.json"}
    assert set(found) == files | {"upload.json"}
    assert found["bundle/weights.safetensors"].download_as_bytes() == WEIGHTS
    listed = json.loads(found["upload.json"].download_as_bytes())["files"]
    assert set(listed) == files
    assert listed["bundle/weights.safetensors"]["bytes"] == len(WEIGHTS)
    assert "(5 files sent, 0 were there)" in capsys.readouterr().out


def test_a_copy_made_again_sends_nothing_and_replaces_nothing(run_dir, bucket, capsys):
    send(run_dir, bucket)
    before = {name: blob.generation for name, blob in copied(bucket).items()}
    send(run_dir, bucket)
    assert {name: blob.generation for name, blob in copied(bucket).items()} == before
    assert "(0 files sent, 5 were there)" in capsys.readouterr().out


def test_a_network_that_fails_in_the_middle_of_a_file_is_borne(run_dir, bucket, network):
    network.cut_after(2 * PIECE, times=2)
    send(run_dir, bucket)
    assert network.cuts == 2
    assert copied(bucket)["bundle/weights.safetensors"].download_as_bytes() == WEIGHTS


def test_after_a_fault_that_lasts_nothing_is_lost_and_the_same_command_goes_on(run_dir, bucket, network, capsys):
    network.cut_after(2 * PIECE, times=1_000)
    with pytest.raises(UploadError, match=rf"is not whole: .*; nothing here is lost: .* upload {run_dir.name} gs://"):
        send(run_dir, bucket)
    partly = copied(bucket)
    assert "report.html" in partly
    assert "upload.json" not in partly
    assert "bundle/weights.safetensors" not in partly
    network.times = 0
    send(run_dir, bucket)
    found = copied(bucket)
    assert found["bundle/weights.safetensors"].download_as_bytes() == WEIGHTS
    assert found["report.html"].generation == partly["report.html"].generation
    assert "(1 files sent, 4 were there)" in capsys.readouterr().out


def test_another_content_under_a_name_of_this_run_is_never_replaced(run_dir, bucket):
    send(run_dir, bucket)
    (run_dir / "report.html").write_text("another report")
    with pytest.raises(UploadError, match=r"report.html is there with another content, and is never replaced"):
        send(run_dir, bucket)
    assert copied(bucket)["report.html"].download_as_bytes() == b"content of report.html"


def test_a_bucket_that_is_away_is_one_line_at_the_command_line(run_dir, bucket, capsys):
    command = ["upload", run_dir.name, "gs://nowhere", "--runs", str(run_dir.parent)]
    assert main(command) == 1
    assert "error: the copy to gs://nowhere/20260101T000000-0001 is not whole: NotFound: " in capsys.readouterr().err


@pytest.mark.parametrize("address", ["s3://bucket", "gs://", "bucket"])
def test_what_is_no_bucket_is_refused_before_anything_runs(address, tmp_path, capsys):
    with pytest.raises(UploadError, match="is no address of a bucket; write gs://BUCKET"):
        check_address(address)
    assert main(["run", "--artifacts", address, "--runs", str(tmp_path / "runs")]) == 1
    assert not (tmp_path / "runs").exists()
