"""The world around a step breaks: what is said, what is tried again, and that nothing is lost."""

import errno
import hashlib
import json
import sqlite3
import threading

import pytest

from lrm.errors import LrmError, ValidationFailed
from lrm.faults import advice, passes, patiently
from lrm.record import read_records, recorded
from pipeline import main
from tests.data_worlds import write_data_folder
from tests.disks import small_disk
from tests.worlds import write_examples


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "one"
    monkeypatch.setenv("LRM_RUN_DIR", str(folder))
    return folder


@recorded("write", output="out")
def write_row(database, out):
    with sqlite3.connect(database, timeout=0.05) as connection:
        connection.execute("create table if not exists t (a)")
        connection.execute("insert into t values (1)")
    connection.close()
    return {}


@recorded("judge", output="out")
def judge(out):
    with (out / "calls").open("a") as calls:
        calls.write("x")
    raise ValidationFailed("too many nulls")


def told(run_dir, step):
    return read_records(run_dir)[step]["error"]["message"]


def test_a_database_that_another_holds_for_a_moment_is_waited_for(tmp_path, run_dir, capfd):
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    other.execute("begin exclusive")
    threading.Timer(0.5, other.rollback).start()
    write_row(tmp_path / "a.db", tmp_path / "out")
    other.close()
    assert read_records(run_dir)["write"]["state"] == "succeeded"
    assert "OperationalError: database is locked; trying again in 1 s" in capfd.readouterr().err


def test_a_database_that_is_no_database_is_said_to_be_damaged_and_not_tried_again(tmp_path, run_dir, capfd):
    (tmp_path / "a.db").write_bytes(b"no database" * 500)
    with pytest.raises(sqlite3.DatabaseError):
        write_row(tmp_path / "a.db", tmp_path / "out")
    assert "trying again" not in capfd.readouterr().err
    assert told(run_dir, "write").startswith("file is not a database; the database is damaged: restore it")


def test_a_verdict_is_never_tried_again(tmp_path, run_dir):
    with pytest.raises(ValidationFailed):
        judge(tmp_path / "out")
    assert (tmp_path / "out/calls").read_text() == "x"
    assert told(run_dir, "judge") == "too many nulls"


def test_a_call_is_tried_once_more_than_there_are_waits():
    calls = []

    def call():
        calls.append(1)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        patiently(call, waits=(0.0, 0.0))
    assert len(calls) == 3


def test_an_error_raised_on_purpose_passes_only_where_it_names_a_fault_that_does(tmp_path):
    away, lost = LrmError("the registry is away"), LrmError("another promoter came first")
    away.__cause__ = lost.__context__ = ConnectionRefusedError("refused")
    assert passes(away)
    assert "a service did not answer" in advice(away, tmp_path)
    assert not passes(lost)
    assert advice(lost, tmp_path) == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full: free some space"),
        (RuntimeError("disk: No space left on device (os error 28)"), "is full: free some space"),
        (OSError(errno.EFBIG, "File too large"), "is full: free some space"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written by this user"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written by this user"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "cannot be written by this user"),
        (sqlite3.OperationalError("database is locked"), "another process holds the database"),
        (KeyboardInterrupt(), ""),
        (KeyError("a"), ""),
    ],
)
def test_each_fault_is_answered_with_what_to_do(error, said, tmp_path):
    assert said in advice(error, tmp_path)
    assert bool(said) == bool(advice(error, tmp_path))


def test_a_training_whose_disk_filled_up_goes_on_from_its_last_whole_checkpoint(tmp_path, run_dir, monkeypatch):
    from lrm.training.run import pretrain_token_factory, train_lrm

    examples = write_examples(tmp_path / "examples")
    pretrain_token_factory(examples, tmp_path / "factory", preset="tiny")
    train_lrm(examples, tmp_path / "factory", tmp_path / "unbroken")
    weights = (tmp_path / "unbroken/weights.safetensors").stat().st_size
    one_and_a_half = 6 * weights  # a checkpoint holds the weights, the best ones, and two moments of each
    with small_disk(tmp_path / "disk", size=str(one_and_a_half)) as change:
        monkeypatch.setenv("LRM_CHECKPOINTS", str(tmp_path / "disk/checkpoints"))
        with pytest.raises((OSError, RuntimeError)):
            train_lrm(examples, tmp_path / "factory", tmp_path / "disk/model")
        assert f"the disk of {tmp_path}/disk/model is full: free some space" in told(run_dir, "train_lrm")
        assert list((tmp_path / "disk").glob("checkpoints/*/checkpoint.pt"))
        assert not (tmp_path / "disk/model/weights.safetensors").exists()
        change("size=20m")
        train_lrm(examples, tmp_path / "factory", tmp_path / "disk/model")
        assert digest(tmp_path / "disk/model/weights.safetensors") == digest(tmp_path / "unbroken/weights.safetensors")
        assert list((tmp_path / "disk").rglob("*.partial")) == []


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path, run_dir, capfd):
    @recorded("fill", output="out")
    def fill(out):
        (out / "big").write_bytes(b"0" * 1_000_000)
        return {}

    with small_disk(tmp_path / "disk", size="100k"):
        with pytest.raises(OSError, match="No space left"):
            fill(tmp_path / "disk/out")
        assert json.loads((tmp_path / "disk/out/record.json").read_text())["state"] == "running"
    assert f"fill: OSError: [Errno 28] No space left on device; the disk of {tmp_path}" in capfd.readouterr().err


def test_runs_that_cannot_be_written_are_one_line_at_the_command_line(tmp_path, capsys):
    data = write_data_folder(tmp_path / "data")
    with small_disk(tmp_path / "runs", size="1m") as change:
        change("ro")
        command = ["run", "--preset", "tiny", "--data", str(data), "--runs", str(tmp_path / "runs")]
        assert main([*command, "--state", str(tmp_path / "state")]) == 1
    said = capsys.readouterr().err
    assert "error: [Errno 30] Read-only file system" in said
    assert "cannot be written by this user: give write access or name another folder" in said
