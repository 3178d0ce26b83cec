"""The ledger's lines: appended, locked, kept twice, and whole."""

import json
import threading
from pathlib import Path

import pytest

from lrm.errors import RegistryError
from lrm.registry import append_log
from lrm.registry.ledger import (
    ABANDONED,
    DONE,
    INTENT,
    Move,
    actor,
    append,
    champions,
    held,
    history,
    ledger_at,
    load,
    locked,
    peek,
    unfinished,
)


@pytest.fixture
def ledger(tmp_path):
    return ledger_at("m", mirror=str(tmp_path / "artifacts"), beside=tmp_path / "beside")


def move(version, *, previous="", action="promote"):
    facts = dict.fromkeys(("verdict", "evaluation_sha256", "policy_sha256", "data_sha256", "code_version"), "")
    told = {"reason": "", "run_id": "r", "actor": "ann@desk", "time": "2026-01-01T00:00:00+00:00"}
    return Move(id=f"id-{version}", name="m", action=action, version=version, previous=previous, **told, **facts)


def write(ledger, one, *states):
    for state in states or (INTENT, DONE):
        assert append(load(ledger), one, state) is not None
    return one


def versions(ledger):
    return [one.version for one in history(load(ledger))]


def test_only_moves_that_were_made_are_history(ledger):
    write(ledger, move("1"))
    killed = write(ledger, move("2", previous="1"), INTENT)
    assert versions(ledger) == ["1"]
    assert unfinished(load(ledger)) == killed
    write(ledger, killed, ABANDONED)
    assert unfinished(load(ledger)) is None
    assert versions(ledger) == ["1"]


def test_rollbacks_take_champions_off_and_foreign_moves_are_kept():
    moves = [move("1"), move("2", previous="1"), move("1", previous="2", action="rollback"), move("5", previous="4")]
    assert champions(moves) == ["1", "4", "5"]


def test_a_line_says_what_was_decided_on_what_by_whom(ledger):
    write(ledger, move("1"))
    line = json.loads(Path(ledger.mirror).read_text().splitlines()[0])
    assert set(line) == {
        *("state", "id", "name", "action", "version", "previous", "verdict", "reason", "run_id", "actor", "time"),
        *("evaluation_sha256", "policy_sha256", "data_sha256", "code_version", "weights_sha256"),
    }


def test_a_line_torn_by_a_kill_is_ignored_and_cut_off(ledger):
    write(ledger, move("1"))
    for place in (ledger.beside, Path(ledger.mirror)):
        with place.open("a") as file:
            file.write('{"state": "int')
    assert versions(ledger) == ["1"]
    write(ledger, move("2", previous="1"))
    assert versions(ledger) == ["1", "2"]


def test_a_damaged_line_is_named(ledger):
    write(ledger, move("1"))
    for place in (ledger.beside, Path(ledger.mirror)):
        place.write_text("nonsense\n" + place.read_text())
    with pytest.raises(RegistryError, match="line 1 is no ledger entry"):
        load(ledger)


@pytest.mark.parametrize("lost", ["beside", "mirror"])
def test_a_place_that_was_lost_is_given_the_lines_of_the_other(ledger, lost):
    write(ledger, move("1"))
    copies = {"beside": ledger.beside, "mirror": Path(ledger.mirror)}
    copies[lost].unlink()
    assert [one.version for one in history(peek(ledger))] == ["1"]
    assert not copies[lost].exists()  # a look changes nothing
    assert versions(ledger) == ["1"]
    assert copies["beside"].read_bytes() == copies["mirror"].read_bytes()


def test_a_line_that_was_changed_by_hand_is_noticed(ledger):
    write(ledger, move("1"))
    ledger.beside.write_text(ledger.beside.read_text().replace("ann@desk", "bob@desk"))
    with pytest.raises(RegistryError, match="the ledger of m contradicts itself"):
        load(ledger)


def test_lines_that_a_stranger_put_first_into_a_mirror_without_history_are_noticed(ledger, tmp_path, monkeypatch):
    write(ledger, move("1"))
    Path(ledger.mirror).unlink()
    stranger, extend = (
        ledger_at("m", mirror=str(tmp_path / "artifacts"), beside=tmp_path / "elsewhere"),
        append_log.extend,
    )

    def late(place, seen, lines):
        monkeypatch.undo()
        write(stranger, move("9"))
        return extend(place, seen, lines)

    monkeypatch.setattr(append_log, "extend", late)
    with pytest.raises(RegistryError, match="the ledger of m contradicts itself"):
        load(ledger)


def test_a_writer_who_has_not_read_the_last_line_is_refused(ledger):
    stale = load(ledger)
    write(ledger, move("1"))
    assert append(stale, move("2"), INTENT) is None
    assert versions(ledger) == ["1"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    blocked = ledger_at("m", mirror=str(tmp_path / "file"), beside=None)
    with pytest.raises(RegistryError, match=r"m\.jsonl cannot be used: (Not a directory|File exists)"), held(blocked):
        pass
    with pytest.raises(RegistryError, match=r"m\.jsonl cannot be used"):
        load(blocked)


def test_who_acts_can_be_named(monkeypatch):
    assert "@" in actor()
    monkeypatch.setenv("LRM_ACTOR", "ann, on call")
    assert actor() == "ann, on call"


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
