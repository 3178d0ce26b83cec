"""Register, promote and roll back, in a real MLflow store."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lrm.content_digest import model_sha256
from lrm.errors import RegistryError
from lrm.registry import backend, bundle
from lrm.registry.address import path_of
from lrm.registry.ledger import INTENT, append, history, ledger_at, load, move_id
from lrm.registry.run import find_champion, promote_model, register_model, resolve, rollback, show
from tests.registry.conftest import NAME


def ledger_of(registry):
    home = path_of(registry).parent
    return ledger_at(NAME, mirror=str(home / "artifacts/promotions"), beside=home / "promotions")


def test_no_champion_is_no_error(registry, tmp_path):
    assert find_champion(registry, NAME, tmp_path / "found")["bundle"] == ""
    assert json.loads((tmp_path / "found" / "champion.json").read_text())["version"] == ""


def test_every_version_tells_which_model_was_judged_on_which_test_requests(
    registry, register, promote, trained, tmp_path
):
    promote(register("a"))
    judged = {"data": {"judged_from": "2024-01-22T00:00:00+00:00", "judged_until": "2024-01-24T00:00:00+00:00"}}
    model, evaluation = trained("b")
    told = json.loads((evaluation / "evaluation.json").read_text())
    (evaluation / "evaluation.json").write_text(json.dumps(told | judged))
    asked = {"registry": registry, "name": NAME, "code_version": "c1", "run_id": "run-b", "validation": evaluation}
    for again in (1, 2):  # the same run tried again registers no second version
        register_model(model, evaluation, tmp_path / f"registered-{again}", **asked)
    find_champion(registry, NAME, tmp_path / "found")
    untold = dict.fromkeys(("judged_from", "judged_until", "parent_version"), "")
    weights = [hashlib.sha256(text).hexdigest() for text in (b"a", b"b")]
    assert json.loads((tmp_path / "found/looks.json").read_text()) == [
        {"version": "1", "weights_sha256": weights[0], "data": "tiny-world"} | untold,
        {"version": "2", "weights_sha256": weights[1], "data": "tiny-world", "parent_version": "1"} | judged["data"],
    ]


def test_a_name_that_is_not_registered_is_told(registry, register):
    register("a")
    with pytest.raises(
        RegistryError, match="'shop' is not registered; name a registered model with --name: tiny-world"
    ):
        show(registry, "shop")


def test_a_registered_version_says_where_it_came_from(registry, register):
    version = register("a", verdict="keep")
    held = show(registry)
    (one,) = held["versions"]
    assert (held["challenger"], held["champion"]) == (version, "")
    assert (one["verdict"], one["data"], one["code_version"], one["run_id"]) == ("keep", "tiny-world", "c1", "run-a")
    bundle = backend.bundle_of(backend.version(backend.connect(registry, NAME), version))
    lineage = json.loads((bundle / "bundle.json").read_text())["lineage"]
    assert lineage["snapshot_id"] == "s" * 64
    assert (lineage["seed"], lineage["feature_service_version"], lineage["parent_version"]) == (7, "v1", "")
    assert {"numpy", "polars", "torch"} <= lineage["environment"]["packages"].keys()


def test_metrics_parameters_and_a_float32_signature_are_logged(registry, register):
    version = register("a")
    store = backend.connect(registry, NAME)
    made = store.client.get_model_version(NAME, version)
    run = store.client.get_run(made.run_id)
    assert run.data.metrics == {"retrieval.ndcg_at_10": 0.25}
    assert run.data.params["model.d_model"] == "16"
    logged = backend.Model.load(backend.local_path(made.source))
    price = [column.type.name for column in logged.signature.inputs if column.name in ("age", "hour")]
    assert price == ["float", "float"]
    assert logged.saved_input_example_info is not None


def test_registering_the_same_content_again_returns_the_version_that_holds_it(registry, register):
    assert [register("a"), register("b"), register("a")] == ["1", "2", "1"]
    assert show(registry)["challenger"] == "1"


def test_a_version_compared_with_a_champion_names_it_as_its_parent(registry, register, promote):
    promote(register("a"))
    champion = resolve(registry, NAME)
    register("b", champion=champion["bundle"])
    register("c", champion="")
    assert [one["parent_version"] for one in show(registry)["versions"]] == ["", "1", ""]


def test_a_bundle_from_elsewhere_cannot_have_been_the_champion(register, trained, tmp_path):
    register("a")
    model, evaluation = trained("z")
    bundle.build(model, evaluation, evaluation, tmp_path / "elsewhere", lineage={})
    with pytest.raises(RegistryError, match="is no version of tiny-world"):
        register("b", champion=str(tmp_path / "elsewhere"))


def test_promote_then_roll_back_ends_where_it_began(registry, register, promote):
    promote(register("a"))
    before = resolve(registry, NAME)
    assert promote(register("b"))["previous"] == "1"
    assert resolve(registry, NAME)["version"] == "2"
    back = rollback(registry, NAME, reason="returns rose")
    assert (back["version"], back["previous"]) == ("1", "2")
    assert resolve(registry, NAME) == before
    assert [move["action"] for move in show(registry)["moves"]] == ["promote", "promote", "rollback"]


def test_two_rollbacks_go_back_two_champions_and_a_third_has_nowhere_to_go(registry, register, promote):
    for weights in "abc":
        promote(register(weights), run_id=weights)
    assert [rollback(registry, NAME)["version"] for _ in range(2)] == ["2", "1"]
    with pytest.raises(RegistryError, match="no earlier champion to roll back to"):
        rollback(registry, NAME)


def test_the_same_promotion_twice_is_a_no_op(registry, register, promote):
    version = register("a")
    assert promote(version)["is_moved"]
    assert not promote(version)["is_moved"]
    assert len(show(registry)["moves"]) == 1


def test_a_step_tried_again_does_not_undo_a_rollback(registry, register, promote):
    promote(register("a"), run_id="first")
    version = register("b")
    promote(version, run_id="second")
    rollback(registry, NAME)
    again = promote(version, run_id="second")
    assert (again["is_moved"], again["champion"]) == (False, "1")


def test_of_two_promoters_the_second_fails(registry, register, promote):
    promote(register("a"))
    second, third = register("b"), register("c")
    promote(second, run_id="b")
    with pytest.raises(RegistryError, match=r"compared with version 1, but the champion is now version 2"):
        promote(third, run_id="c")
    assert resolve(registry, NAME)["version"] == second


def test_of_promoters_at_the_same_moment_exactly_one_wins(register, promote):
    promote(register("a"))
    rivals = [register(weights) for weights in "bcd"]

    def attempt(version):
        try:
            return promote(version, run_id=version)["is_moved"]
        except RegistryError:
            return False

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(attempt, rivals)) == [False, False, True]


def test_only_the_verdict_promote_makes_a_champion(register, promote):
    with pytest.raises(RegistryError, match="has the verdict 'keep'"):
        promote(register("a", verdict="keep"))


def test_a_version_that_is_not_there_is_named_with_those_that_are(register, promote):
    register("a")
    with pytest.raises(RegistryError, match=r"no version '9'; its versions are: 1"):
        promote("9")


def test_a_promotion_killed_before_the_alias_moved_is_finished_by_the_next_call(registry, register, promote):
    promote(register("a"))
    version = register("b")
    kill_before_the_alias_moves(registry, version)
    assert backend.alias(backend.connect(registry, NAME), "champion") == "1"
    assert resolve(registry, NAME)["version"] == version
    assert [move["version"] for move in show(registry)["moves"]] == ["1", "2"]


def test_a_promotion_killed_before_it_was_written_down_is_not_made_twice(registry, register, promote):
    promote(register("a"))
    version = register("b")
    kill_before_the_alias_moves(registry, version)
    backend.move_alias(backend.connect(registry, NAME), "champion", version)
    assert not promote(version, run_id="killed")["is_moved"]
    assert [move["version"] for move in show(registry)["moves"]] == ["1", "2"]


def kill_before_the_alias_moves(registry, version):
    """What a process leaves that is killed between its intent and the alias."""
    log = load(ledger_of(registry))
    (promoted,) = [move for state, move in log.lines if state == INTENT]
    made = {"version": version, "previous": "1", "run_id": "killed", "id": move_id(NAME, "promote", version, "killed")}
    append(log, replace(promoted, **made), INTENT)


def test_a_champion_moved_by_other_means_is_not_rolled_back_blindly(registry, register, promote):
    for weights in "ab":
        promote(register(weights), run_id=weights)
    backend.move_alias(backend.connect(registry, NAME), "champion", register("c"))
    with pytest.raises(RegistryError, match="moved by other means"):
        rollback(registry, NAME)


@pytest.mark.parametrize(("damage", "message"), [("change", "was changed"), ("remove", "is missing"), ("add", "added")])
def test_a_tampered_bundle_is_refused(registry, register, promote, damage, message):
    version = register("a")
    bundle = backend.bundle_of(backend.version(backend.connect(registry, NAME), version))
    if damage == "remove":
        (bundle / "weights.safetensors").unlink()
    else:
        (bundle / ("weights.safetensors" if damage == "change" else "more.pt")).write_text("evil")
    with pytest.raises(RegistryError, match=message):
        promote(version)
    assert resolve(registry, NAME)["version"] == ""


def test_a_rollback_to_a_tampered_bundle_leaves_the_champion(registry, register, promote):
    for weights in "ab":
        promote(register(weights), run_id=weights)
    bundle = backend.bundle_of(backend.version(backend.connect(registry, NAME), "1"))
    (bundle / "weights.safetensors").write_text("evil")
    with pytest.raises(RegistryError, match=r"weights\.safetensors was changed"):
        rollback(registry, NAME)
    assert resolve(registry, NAME)["version"] == "2"


def test_an_artifact_that_is_gone_is_named(registry, register, promote):
    promote(register("a"))
    bundle = backend.bundle_of(backend.version(backend.connect(registry, NAME), "1"))
    bundle.rename(bundle.with_name("moved"))
    with pytest.raises(RegistryError, match="the artifact of version 1 is gone"):
        resolve(registry, NAME)


@pytest.mark.parametrize("registry_name", ["file:./mlruns", "state/mlflow.db", "sqlite:///"])
def test_a_registry_that_is_no_sqlite_file_is_refused(registry_name, tmp_path):
    with pytest.raises(RegistryError, match="is neither a sqlite:///PATH nor"):
        find_champion(registry_name, NAME, tmp_path)


def test_a_model_folder_without_weights_or_evaluation_is_refused(registry, trained, tmp_path):
    model, evaluation = trained("a")
    (evaluation / "evaluation.json").unlink()
    ask = {"registry": registry, "name": NAME, "code_version": "c1", "run_id": "r"} | {"validation": evaluation}
    with pytest.raises(RegistryError, match="only an evaluated model"):
        register_model(model, evaluation, tmp_path / "registered", **ask)
    (model / "manifest.json").unlink()
    with pytest.raises(RegistryError, match="has no lineage"):
        register_model(model, evaluation, tmp_path / "registered", **ask)


def test_a_version_names_the_evaluation_and_the_policy_that_judged_it(registry, register, trained):
    register("a")
    (one,) = show(registry)["versions"]
    _, evaluation = trained("a")
    assert one["evaluation_sha256"] == hashlib.sha256((evaluation / "evaluation.json").read_bytes()).hexdigest()
    assert one["policy_sha256"] == "p" * 64


def test_a_model_that_was_changed_after_it_was_scored_is_refused(registry, trained, tmp_path):
    model, evaluation = trained("a")
    judged = json.loads((evaluation / "evaluation.json").read_text()) | {"challenger_content": model_sha256(model)}
    (evaluation / "evaluation.json").write_text(json.dumps(judged))
    told = {"registry": registry, "name": NAME, "code_version": "c1", "run_id": "r", "validation": evaluation}
    assert register_model(model, evaluation, tmp_path / "registered", **told)["is_new"]
    (model / "weights.safetensors").write_text("retouched")
    with pytest.raises(RegistryError, match="it was changed after it was scored, or is another model"):
        register_model(model, evaluation, tmp_path / "registered", **told)
    assert len(show(registry)["versions"]) == 1


def test_the_ledger_says_what_a_promotion_rests_on_and_why_the_past_may_promote(registry, register, tmp_path):
    told = {"registry": registry, "name": NAME, "version": register("a"), "run_id": "run-a"}
    promote_model(tmp_path / "promoted", **told, note="the last month was corrupt")
    (move,) = show(registry)["moves"]
    (one,) = show(registry)["versions"]
    facts = ("verdict", "evaluation_sha256", "policy_sha256", "data_sha256", "code_version")
    assert {fact: move[fact] for fact in facts} == {fact: one[fact] for fact in facts}
    assert (move["reason"], move["run_id"]) == ("the last month was corrupt; ndcg@10 rose by 0.02", "run-a")


def test_a_folder_may_hold_the_mirror_and_the_registry_remembers_it(registry, register, promote, tmp_path):
    place = str(tmp_path / "elsewhere")
    promote(register("a", ledger=place))
    assert (tmp_path / "elsewhere" / f"{NAME}.jsonl").is_file()
    register("b")
    with pytest.raises(RegistryError, match=r"keeps its ledger in .*elsewhere, not in gs://bucket/promotions"):
        register("c", ledger="gs://bucket/promotions")


def test_a_place_holds_all_earlier_moves_before_the_registry_names_it(registry, register, promote, tmp_path):
    promote(register("a"))
    register("b", ledger=str(tmp_path / "elsewhere"))
    moved = ledger_at(NAME, mirror=str(tmp_path / "elsewhere"), beside=None)
    assert [move.version for move in history(load(moved))] == ["1"]


def test_a_server_without_a_folder_for_artifacts_is_refused(trained, tmp_path):
    model, evaluation = trained("a")
    told = {"registry": "http://127.0.0.1:9", "name": NAME, "code_version": "c", "run_id": "r"}
    with pytest.raises(RegistryError, match="is a server: give the folder `state`"):
        register_model(model, evaluation, tmp_path / "registered", validation=evaluation, **told)


def test_a_registry_that_is_no_database_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, and longer than a header of one hundred bytes" * 3)
    with pytest.raises(RegistryError, match=r"the model registry failed to connect: .*file is not a database"):
        find_champion(f"sqlite:///{tmp_path}/mlflow.db", NAME, tmp_path)
