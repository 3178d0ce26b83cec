"""Who moves the alias when several machines want to: a ledger in a bucket, and an alias that is a plain value."""

import uuid

import pytest

from lrm.errors import RegistryError
from lrm.registry import bucket
from lrm.registry.ledger import INTENT, PROMOTE, ROLLBACK, append, history, ledger_at, load, unfinished
from lrm.registry.promotion import Alias, Asked, move_to, rollback, settle
from tests import services

SECOND = Asked(PROMOTE, "better", "ann@desk", "run-2")


class Named:
    """What an alias names."""

    version = ""


@pytest.fixture(scope="module")
def address():
    with services.gcs() as address:
        yield address


@pytest.fixture
def ledger(address, monkeypatch):
    monkeypatch.setenv(bucket.EMULATOR, address)
    client = bucket.storage.Client("emulated", bucket.AnonymousCredentials())
    made = client.create_bucket(f"ledger-{uuid.uuid4().hex[:8]}")
    client.close()
    return ledger_at("m", mirror=f"gs://{made.name}/promotions", beside=None)


@pytest.fixture
def named(ledger):
    """Version 1 in service."""
    named = Named()
    move_to(ledger, alias_of(named), Asked(PROMOTE, "first", "ann@desk", "run-1"), version="1", expected="")
    return named


def alias_of(named):
    def move(version):
        named.version = version

    return Alias(
        read=lambda: named.version,
        move=move,
        check=lambda version: {"verdict": "promote", "weights_sha256": f"w{version}"},
        weights=lambda version: f"w{version}",
    )


def versions(ledger):
    return [move.version for move in history(load(ledger))]


def test_a_bucket_alone_keeps_the_ledger(ledger, named):
    assert move_to(ledger, alias_of(named), SECOND, version="2", expected="1").previous == "1"
    back, is_new = rollback(ledger, alias_of(named), Asked(ROLLBACK, "", "bob@desk"), expected="2")
    assert (back.version, is_new) == ("1", True)
    assert (named.version, versions(ledger)) == ("1", ["1", "2", "1"])


def test_an_alias_that_somebody_moves_at_the_last_moment_is_left_to_them(ledger, named):
    def look(version):
        named.version = "9"
        return {}

    with pytest.raises(RegistryError, match="moved the champion while version 2 was about to replace version 1"):
        move_to(ledger, alias_of(named)._replace(check=look), SECOND, version="2", expected="1")
    assert (named.version, versions(ledger)) == ("9", ["1"])
    assert unfinished(load(ledger)) is None


def test_a_promoter_whose_intent_comes_second_is_told(ledger, named):
    alias = alias_of(named)

    def look(version):
        """While version 2 is looked at, another machine promotes version 3."""
        move_to(ledger, alias, SECOND._replace(run_id="run-3"), version="3", expected="1")
        return {}

    with pytest.raises(RegistryError, match="another promoter came first"):
        move_to(ledger, alias._replace(check=look), SECOND, version="2", expected="1")
    assert (named.version, versions(ledger)) == ("3", ["1", "3"])


def test_a_late_move_that_others_have_finished_and_left_behind_does_not_set_the_alias_back(ledger, named):
    alias = alias_of(named)

    def stall(version):
        """Between the intent and the alias another machine finishes the move, and then rolls it back."""
        if named.version == "1" and version == "2":
            settle(ledger, alias)
            rollback(ledger, alias, Asked(ROLLBACK, "returns rose", "bob@desk"), expected="2")
        alias.move(version)

    assert move_to(ledger, alias._replace(move=stall), SECOND, version="2", expected="1") is not None
    assert (named.version, versions(ledger)) == ("1", ["1", "2", "1"])


def test_of_two_people_who_roll_back_at_the_same_moment_the_second_is_told(ledger, named):
    alias = alias_of(named)
    for number in "23":
        move_to(ledger, alias, SECOND._replace(run_id=f"run-{number}"), version=number, expected=named.version)
    asked = Asked(ROLLBACK, "returns rose", "ann@desk")
    rollback(ledger, alias, asked, expected="3")
    with pytest.raises(RegistryError, match="was version 3 when you asked and is now version 2: somebody moved it"):
        rollback(ledger, alias, asked._replace(actor="bob@desk"), expected="3")
    assert named.version == "2"


def test_an_answer_that_got_lost_is_no_loss_of_the_race(ledger, named):
    """The client tries again after a fault; the first try had been written."""
    log = load(ledger)
    move = history(log)[0]
    append(log, move, INTENT)
    assert append(log, move, INTENT) is not None
    assert len(load(ledger).lines) == 3


def test_a_bucket_that_is_away_or_absent_is_named_and_nothing_is_lost(ledger, named, monkeypatch):
    monkeypatch.setattr(bucket, "PATIENCE_SECONDS", 0.5)
    absent = ledger_at("m", mirror="gs://no-such-bucket/promotions", beside=None)
    with pytest.raises(RegistryError, match=r"cannot write gs://no-such-bucket/promotions/m\.jsonl: NotFound"):
        move_to(absent, alias_of(named), SECOND, version="2", expected="1")
    with monkeypatch.context() as away:
        away.setenv(bucket.EMULATOR, f"http://127.0.0.1:{services.free_port()}")
        with pytest.raises(RegistryError, match=r"cannot read gs://.*run the same command again"):
            move_to(ledger, alias_of(named), SECOND, version="2", expected="1")
    assert named.version == "1"
    move_to(ledger, alias_of(named), SECOND, version="2", expected="1")
    assert (named.version, versions(ledger)) == ("2", ["1", "2"])


def test_a_bucket_that_goes_away_after_the_alias_moved_is_written_when_it_is_back(ledger, named, monkeypatch):
    monkeypatch.setattr(bucket, "PATIENCE_SECONDS", 0.5)
    alias, away = alias_of(named), pytest.MonkeyPatch()

    def move(version):
        alias.move(version)
        away.setenv(bucket.EMULATOR, f"http://127.0.0.1:{services.free_port()}")

    with pytest.raises(RegistryError, match="it goes on where this one stopped"):
        move_to(ledger, alias._replace(move=move), SECOND, version="2", expected="1")
    away.undo()
    assert versions(ledger) == ["1"]
    assert move_to(ledger, alias, SECOND, version="2", expected="1") is None
    assert (named.version, versions(ledger)) == ("2", ["1", "2"])
