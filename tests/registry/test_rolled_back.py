"""Weights that a person took out of service come back by a person's decision alone."""

import json
from dataclasses import fields

import pytest

from lrm.content_digest import WEIGHTS
from lrm.errors import RegistryError
from lrm.registry import backend
from lrm.registry.ledger import APPROVE, PROMOTE, ROLLBACK, Move, rolled_back
from lrm.registry.run import approve, find_champion, rollback, show
from lrm.storage import sha256_of
from tests.registry.conftest import NAME, write_trained


@pytest.fixture
def left(registry, register, promote):
    """Version 2 was rolled back to version 1."""
    for weights in "ab":
        promote(register(weights), run_id=weights)
    return rollback(registry, NAME, reason="returns rose")["previous"]


@pytest.fixture
def again(left, registry, tmp_path, register):
    """The same weights, judged by a later run: another evaluation, so a version of its own."""

    def register_again(weights="b", **judged):
        _, evaluation = write_trained(tmp_path, weights)
        path = evaluation / "evaluation.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": {"total": 2.0}} | judged))
        return register_bundle(tmp_path, registry, weights)

    return register_again


def register_bundle(root, registry, weights):
    from lrm.registry.run import register_model

    told = {"registry": registry, "name": NAME, "code_version": "c1", "run_id": f"again-{weights}"}
    model, evaluation = root / f"model-{weights}", root / f"evaluation-{weights}"
    return register_model(model, evaluation, root / "again", **told, validation=evaluation)["version"]


def banned(registry, tmp_path):
    return find_champion(registry, NAME, tmp_path / "found")["rolled_back"]


def test_the_next_run_learns_which_weights_were_rolled_back_by_whom_and_why(left, registry, tmp_path):
    weights = sha256_of(tmp_path / "model-b" / WEIGHTS)
    ((known, told),) = banned(registry, tmp_path).items()
    assert known == weights == show(registry)["moves"][-1]["weights_sha256"]
    assert "rolled version 2 back at" in told
    assert told.endswith(": returns rose")
    assert json.loads((tmp_path / "found/champion.json").read_text())["rolled_back"] == {known: told}


def test_a_run_does_not_promote_the_same_weights_under_a_new_number(left, again, registry, promote):
    version = again()
    assert version == "3"
    with pytest.raises(RegistryError, match=r"version 3 has the weights of version 2, and .* rolled version 2 back"):
        promote(version, run_id="next")
    assert show(registry)["champion"] == "1"


def test_other_weights_are_promoted_as_ever(left, register, promote):
    assert promote(register("c"), run_id="c")["champion"] == "3"


def test_a_person_who_approves_the_weights_lifts_the_ban_and_another_rollback_sets_it_again(
    left, again, registry, promote, tmp_path
):
    approve(registry, NAME, left, reason="the returns had another cause")
    assert banned(registry, tmp_path) == {}
    rollback(registry, NAME, leave=left)
    assert len(banned(registry, tmp_path)) == 1
    approve(registry, NAME, again(), reason="the same model under its new number")
    assert banned(registry, tmp_path) == {}
    assert show(registry)["champion"] == "3"


def test_a_champion_whose_files_are_damaged_is_left_and_its_weights_are_remembered(
    registry, register, promote, tmp_path
):
    for weights in "ab":
        promote(register(weights), run_id=weights)
    folder = backend.bundle_of(backend.version(backend.connect(registry, NAME), "2"))
    (folder / WEIGHTS).write_text("damaged")
    rollback(registry, NAME)
    assert banned(registry, tmp_path).keys() == {sha256_of(tmp_path / "model-b" / WEIGHTS)}


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([(PROMOTE, "a"), (PROMOTE, "b"), (ROLLBACK, "b")], {"b"}),
        ([(PROMOTE, "b"), (ROLLBACK, "b"), (APPROVE, "b")], set()),
        ([(PROMOTE, "b"), (ROLLBACK, "b"), (APPROVE, "b"), (ROLLBACK, "b")], {"b"}),
        ([(PROMOTE, "c"), (ROLLBACK, "c"), (ROLLBACK, "b"), (APPROVE, "c")], {"b"}),
        ([(PROMOTE, ""), (ROLLBACK, "")], set()),  # lines of before weights were written down
    ],
)
def test_what_is_banned_follows_from_the_ledger_alone(moves, expected):
    facts = {field.name: "" for field in fields(Move) if field.name not in ("action", "weights_sha256")}
    made = [Move(**facts, action=action, weights_sha256=weights) for action, weights in moves]
    assert rolled_back(made).keys() == expected
