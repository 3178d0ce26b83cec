"""The verdict that is believed is the digested evaluation's: an edited tag or file is refused in words."""

import json

import pytest

from lrm.content_digest import WEIGHTS
from lrm.errors import RegistryError
from lrm.registry import backend
from lrm.registry import bundle as bundles
from lrm.registry.judgement import next_step
from lrm.registry.run import approve, register_model, resolve, rollback
from lrm.storage import sha256_of
from tests.registry.conftest import NAME, write_trained
from tests.registry.test_rolled_back import register_bundle


def tag(registry, version, key, value):
    backend.connect(registry, NAME).client.set_model_version_tag(NAME, version, key, value)


def bundle(registry, version):
    return backend.bundle_of(backend.version(backend.connect(registry, NAME), version))


def test_a_kept_version_whose_tag_was_edited_to_promote_is_not_promoted(registry, register, promote):
    version = register("a", verdict="keep")
    tag(registry, version, "verdict", "promote")
    with pytest.raises(RegistryError, match=r"evaluation says 'keep', and the registry's tag `verdict` 'promote'"):
        promote(version)
    assert resolve(registry, NAME)["version"] == ""


def test_a_rejected_version_whose_tag_was_edited_to_keep_is_not_approved(registry, register):
    version = register("a", verdict="reject")
    tag(registry, version, "verdict", "keep")
    with pytest.raises(RegistryError, match=r"evaluation says 'reject', and the registry's tag `verdict` 'keep'"):
        approve(registry, NAME, version, reason="I want it")
    tag(registry, version, "verdict", "reject")
    with pytest.raises(RegistryError, match="it is unfit to serve"):
        approve(registry, NAME, version, reason="I want it")


@pytest.mark.parametrize("act", ["promote", "approve"])
def test_an_evaluation_that_was_edited_with_its_digest_is_not_the_registered_one(registry, register, promote, act):
    """Whoever may write the files may write their list of digests too; the registry knows what it was."""
    from lrm.content_digest import content_sha256

    version = register("a", verdict="reject")
    folder = bundle(registry, version)
    evaluation, listed = folder / "evaluation.json", folder / "bundle.json"
    evaluation.write_text(json.dumps(json.loads(evaluation.read_text()) | {"verdict": "promote"}))
    facts = json.loads(listed.read_text())
    facts["files"]["evaluation.json"] = sha256_of(evaluation)
    facts["content_sha256"] = content_sha256(facts["files"])
    listed.write_text(json.dumps(facts))
    tag(registry, version, "verdict", "promote")
    with pytest.raises(RegistryError, match="is not what was registered: its content_sha256 is"):
        promote(version) if act == "promote" else approve(registry, NAME, version, reason="I want it")
    tag(registry, version, "content_sha256", facts["content_sha256"])
    with pytest.raises(RegistryError, match="is not what was registered: its evaluation_sha256 is"):
        promote(version) if act == "promote" else approve(registry, NAME, version, reason="I want it")


def test_an_edited_parent_does_not_let_a_version_skip_its_comparison(registry, register, promote, tmp_path):
    for weights in "ab":
        promote(register(weights), run_id=weights)
    _, evaluation = write_trained(tmp_path, "c")
    path = evaluation / "evaluation.json"
    champion = {"champion": {"weights_sha256": sha256_of(tmp_path / "model-a" / WEIGHTS)}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"about": champion}))
    version = register_bundle(tmp_path, registry, "c")
    with pytest.raises(RegistryError, match=r"which are not those of version 2, its `parent_version`"):
        promote(version)


def test_a_rollback_needs_no_verdict_and_is_not_held_up_by_an_edited_one(registry, register, promote):
    for weights in "ab":
        promote(register(weights), run_id=weights)
    tag(registry, "1", "verdict", "keep")
    assert rollback(registry, NAME)["version"] == "1"


def test_a_version_that_is_not_promoted_says_what_can_be_done_next(register, promote):
    with pytest.raises(RegistryError, match=r"python pipeline\.py approve 1 --name tiny-world --reason"):
        promote(register("a", verdict="keep"))
    assert "the reasons say what is missing" in next_step(NAME, "2", "inconclusive")
    assert "nobody can put version 2 in service" in next_step(NAME, "2", "reject")
    assert next_step(NAME, "2", "promote") == ""


def test_an_evaluation_of_another_format_is_refused_in_words(registry, tmp_path, promote):
    model, evaluation = write_trained(tmp_path, "a")
    path = evaluation / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    told = {"registry": registry, "name": NAME, "code_version": "c1", "run_id": "r", "validation": evaluation}
    version = str(register_model(model, evaluation, tmp_path / "registered", **told)["version"])
    with pytest.raises(RegistryError, match="has format 0, and this version reads format 1; evaluate and register"):
        promote(version)


def test_a_bundle_of_another_format_is_refused_in_words(registry, register):
    folder = bundle(registry, register("a"))
    listed = folder / "bundle.json"
    listed.write_text(
        json.dumps({name: value for name, value in json.loads(listed.read_text()).items() if name != "format"})
    )
    with pytest.raises(RegistryError, match=r"bundle\.json has no format number, and this version reads format 1"):
        bundles.verify(folder)
