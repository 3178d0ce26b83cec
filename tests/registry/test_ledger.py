"""The ledger's file: appended, locked, and whole."""

import threading

import pytest

from lrm.errors import RegistryError
from lrm.registry.ledger import champions, close, history, intend, locked, unfinished


def move(path, version, *, previous="", action="promote", done=True):
    made = intend(path, name="m", action=action, version=version, previous=previous, run_id="r", reason="")
    if done:
        close(path, made)
    return made


def test_only_moves_that_were_made_are_history(tmp_path):
    path = tmp_path / "ledger.jsonl"
    move(path, "1")
    killed = move(path, "2", previous="1", done=False)
    assert [made.version for made in history(path, "m")] == ["1"]
    assert unfinished(path, "m") == killed
    close(path, killed)
    assert unfinished(path, "m") is None
    assert history(path, "another") == []


def test_rollbacks_take_champions_off_and_foreign_moves_are_kept(tmp_path):
    path = tmp_path / "ledger.jsonl"
    move(path, "1")
    move(path, "2", previous="1")
    move(path, "1", previous="2", action="rollback")
    move(path, "5", previous="4")
    assert champions(history(path, "m")) == ["1", "4", "5"]


def test_a_line_torn_by_a_kill_is_ignored_and_cut_off(tmp_path):
    path = tmp_path / "ledger.jsonl"
    move(path, "1")
    with path.open("a") as file:
        file.write('{"state": "int')
    assert [made.version for made in history(path, "m")] == ["1"]
    move(path, "2", previous="1")
    assert [made.version for made in history(path, "m")] == ["1", "2"]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    move(path, "1")
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(RegistryError, match="line 1 is no ledger entry"):
        history(path, "m")


def test_the_lock_lets_one_in_at_a_time(tmp_path):
    path, entered = tmp_path / "ledger.jsonl", threading.Event()

    def enter():
        with locked(path):
            entered.set()

    thread = threading.Thread(target=enter)
    with locked(path):
        thread.start()
        assert not entered.wait(0.1)
    thread.join(5)
    assert entered.is_set()
