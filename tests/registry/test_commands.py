"""`history`, `rollback` and `approve`, as a person on call types them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from local.commands.history import told
from lrm.registry import backend
from lrm.registry.address import path_of
from pipeline import main
from tests.registry.conftest import NAME


@pytest.fixture
def state(registry):
    return path_of(registry).parent


@pytest.fixture
def two(register, promote):
    """Version 2 in service, version 1 before it."""
    for weights in "ab":
        promote(register(weights), run_id=weights)


def release(state, version):
    """A release of a version, as roll_out leaves it: here only what a link needs."""
    from lrm.content_digest import content_sha256
    from lrm.registry.bundle import BUNDLE
    from lrm.serving.release_contents import write_list

    folder = state / "serving" / NAME / f"{version}-abc"
    (folder / "bundle").mkdir(parents=True)
    (folder / "release.json").write_text(json.dumps({"version": version}))
    (folder / "bundle" / BUNDLE).write_text(
        json.dumps({"format": 1, "content_sha256": content_sha256({}), "files": {}})
    )
    write_list(folder)
    return folder


def serve(state, version):
    link = state / "serving" / NAME / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"{version}-abc")


def current(state):
    return (state / "serving" / NAME / "current").resolve().name


def champion(registry):
    return backend.alias(backend.connect(registry, NAME), backend.CHAMPION)


def test_a_rollback_moves_the_alias_and_the_link_and_is_in_the_history(registry, state, two, capsys):
    release(state, "1"), release(state, "2"), serve(state, "2")
    assert main(["rollback", "--state", str(state), "--reason", "returns rose"]) == 0
    assert "version 1 is the champion again, was 2" in capsys.readouterr().out
    assert (champion(registry), current(state)) == ("1", "1-abc")
    assert main(["history", "--state", str(state)]) == 0
    printed = capsys.readouterr().out
    assert f"{NAME}: version 1 is the champion since" in printed
    assert "latest challenger: version 2, verdict promote" in printed
    assert "rollback  2 -> 1" in printed
    assert printed.index("2 -> 1") < printed.index("1 -> 2") < printed.index("none -> 1")
    assert "returns rose" in printed


def test_a_rollback_killed_before_the_link_moved_is_finished_and_goes_no_further_back(
    registry,
    state,
    two,
    register,
    promote,
    capsys,
):
    promote(register("c"), run_id="c")
    release(state, "1"), release(state, "2"), release(state, "3"), serve(state, "3")
    main(["rollback", "--state", str(state)])
    serve(state, "3")  # as a process leaves it that was killed before this write
    assert main(["rollback", "--state", str(state)]) == 0
    assert (champion(registry), current(state)) == ("2", "2-abc")
    assert main(["rollback", "--state", str(state)]) == 0
    assert (champion(registry), current(state)) == ("1", "1-abc")


def test_where_no_release_is_kept_the_rollback_says_which_command_makes_one(registry, state, two, capsys):
    release(state, "2"), serve(state, "2")
    assert main(["rollback", "--state", str(state), "--runs", str(state / "none")]) == 1
    printed = capsys.readouterr().out
    assert "keeps no release of version 1, and" in printed
    assert "servers go on as they are. Run the workflow on data of" in printed
    assert (champion(registry), current(state)) == ("1", "2-abc")


def test_a_rollback_that_servers_could_not_follow_goes_no_further_back_when_it_is_tried_again(
    registry, state, two, register, promote, capsys
):
    promote(register("c"), run_id="c")
    release(state, "1"), release(state, "3"), serve(state, "3")
    rollback = ["rollback", "--state", str(state), "--runs", str(state / "none")]
    for _ in range(2):
        assert main(rollback) == 1  # no release of version 2 is kept, and none can be made
        assert (champion(registry), current(state)) == ("2", "3-abc")
    printed = capsys.readouterr().out
    assert "the rollback from version 3 is finished, and none was made further back" in printed
    assert "python pipeline.py rollback --from 2" in printed
    assert main([*rollback, "--from", "2"]) == 0
    assert (champion(registry), current(state)) == ("1", "1-abc")


def test_a_version_that_is_named_is_left_once_however_often_it_is_asked(
    registry, state, two, register, promote, capsys
):
    promote(register("c"), run_id="c")
    release(state, "1"), release(state, "2"), release(state, "3"), serve(state, "3")
    for _ in range(2):
        assert main(["rollback", "--state", str(state), "--from", "3"]) == 0
        assert (champion(registry), current(state)) == ("2", "2-abc")
    assert main(["rollback", "--state", str(state), "--from", "1"]) == 1
    assert "the champion is version 2, and the last rollback did not leave version 1" in capsys.readouterr().err


def test_a_kept_challenger_is_put_in_service_by_a_person_who_says_why(registry, state, two, register, capsys):
    register("k", verdict="keep")
    with pytest.raises(SystemExit):
        main(["approve", "3", "--state", str(state)])
    assert main(["approve", "3", "--state", str(state), "--reason", "  "]) == 1
    assert "needs a reason" in capsys.readouterr().err
    release(state, "3")
    assert main(["approve", "3", "--state", str(state), "--reason", "seen in the shop test"]) == 0
    assert "version 3 is the champion, was 2" in capsys.readouterr().out
    assert champion(registry) == "3"
    assert main(["approve", "3", "--state", str(state), "--reason", "again"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    main(["history", "--state", str(state)])
    assert capsys.readouterr().out.count("approve") == 1


def test_a_rejected_version_cannot_be_approved(registry, state, register, capsys):
    register("r", verdict="reject")
    assert main(["approve", "1", "--state", str(state), "--reason", "I want it"]) == 1
    assert "version 1 was rejected: it is unfit to serve" in capsys.readouterr().err
    assert champion(registry) == ""


def test_commands_name_what_is_missing(registry, state, tmp_path, capsys):
    assert main(["history", "--state", str(tmp_path / "none")]) == 1
    assert "there is no registry at" in capsys.readouterr().err
    assert main(["history", "--state", str(state)]) == 1
    assert "there are none yet" in capsys.readouterr().err


def test_the_history_says_that_a_move_was_interrupted_or_made_by_other_means():
    moved = {"version": "2", "previous": "1", "action": "promote", "actor": "ann@desk"}
    held = {
        "name": "m",
        "champion": "2",
        "challenger": "3",
        "versions": [],
        "moves": [],
        "interrupted": moved,
        "served": "2",
    }
    assert told(held, datetime.now(UTC))[0] == (
        "m: a promote (1 -> 2, by ann@desk) was interrupted; the next command or run ends it"
    )
    assert "by other means than this ledger's" in told(held | {"interrupted": None}, datetime.now(UTC))[0]
    assert "no version was ever promoted" in told(held | {"interrupted": None, "champion": ""}, datetime.now(UTC))[0]


def test_how_long_a_version_was_in_service_is_counted_to_the_next_move():
    begin = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
    known = {"action": "promote", "actor": "ann@desk", "run_id": "", "reason": "better"}
    moves = [
        known | {"version": "1", "previous": "", "time": begin.isoformat()},
        known | {"version": "2", "previous": "1", "time": (begin + timedelta(days=2, hours=5)).isoformat()},
    ]
    held = {
        "name": "m",
        "champion": "2",
        "challenger": "2",
        "versions": [],
        "moves": moves,
        "interrupted": None,
        "served": "2",
    }
    lines = told(held, begin + timedelta(days=2, hours=6))
    assert lines == [
        "m: version 2 is the champion since 2026-03-03 13:00 UTC",
        "servers are told to serve it: version 2",
        "",
        "when (UTC)        what     from -> to  in service     who       why",
        "2026-03-03 13:00  promote  1 -> 2      1 hour so far  ann@desk  better",
        "2026-03-01 08:00  promote  none -> 1   2 days         ann@desk  better",
    ]
