"""A person puts a version in service that no roll-out has ever made a release of."""

import json
import re

import pytest

from local.prepare import data_version, declarations_version
from lrm import manifest
from lrm.record import RECORD
from lrm.serving.release import CURRENT, read_release, root_of, served_version
from pipeline import main
from tests.registry import children
from tests.serving.conftest import NAME, register

KEPT = "kept-back"


def begun(runs, run_id, world, *, validation):
    """A run on the shop's data whose validation ended so."""
    folder = runs / run_id
    steps = folder / "steps/validate_data"
    steps.mkdir(parents=True)
    asked = {"model_name": KEPT, "data": str(world.data), "feature_repo": str(world.feature_repo), "as_of": ""}
    asked |= {"data_version": data_version(world.data), "preset": "tiny", "seed": 0}
    declared = declarations_version(world.feature_repo)
    manifest.begin(folder, arguments=asked, configuration={}, declarations_sha256=declared, code={})
    record = {"step": "validate_data", "state": validation, "started": "2026-01-01T00:00:00+00:00"}
    (steps / RECORD).write_text(json.dumps(record))


@pytest.fixture
def runs(world, tmp_path):
    """A folder of runs whose latest is one on the shop's data, which passed validation."""
    begun(tmp_path / "runs", "run-1", world, validation="succeeded")
    return tmp_path / "runs"


def rewrite(runs, run_id, part, **changed):
    """Let a run have read something else."""
    path = runs / run_id / manifest.RUN_MANIFEST
    facts = json.loads(path.read_text())
    facts[part] |= changed
    path.write_text(json.dumps(facts))


def approve(world, version, runs):
    where = ["--name", KEPT, "--state", str(world.state), "--runs", str(runs)]
    return main(["approve", version, "--reason", "wanted by the shop", *where])


def test_its_release_is_made_from_the_data_of_the_latest_run(world, runs, tmp_path, capsys):
    version = register(world.root, world.registry, "waits", name=KEPT)
    assert approve(world, version, tmp_path / "none") == 1
    assert "has no run whose data passed validation; servers go on as they are" in capsys.readouterr().out
    assert approve(world, version, runs) == 0
    printed = capsys.readouterr().out
    assert f"no release of version {version} is kept; making one from {world.data}" in printed
    release = read_release((root_of(world.state, KEPT) / CURRENT).resolve())
    assert (release.name, release.version) == (KEPT, version)
    assert f"in service: {release.folder}" in printed
    assert world.release.name == NAME  # the other model's servers go on as they were


def test_data_that_validation_rejected_make_no_release(world, tmp_path, capsys):
    version = register(world.root, world.registry, "rejected", name=KEPT)
    begun(tmp_path / "runs", "run-1", world, validation="failed")
    assert approve(world, version, tmp_path / "runs") == 1
    printed = capsys.readouterr().out
    assert "has no run whose data passed validation; servers go on as they are" in printed
    assert f"Run the workflow on data of '{KEPT}' that pass validation" in printed


def test_a_run_whose_data_were_rejected_leaves_the_word_to_the_one_before_it(world, runs, capsys):
    version = register(world.root, world.registry, "before", name=KEPT)
    begun(runs, "run-2", world, validation="failed")
    rewrite(runs, "run-2", "data", folder="/rejected", sha256="of other data")
    assert approve(world, version, runs) == 0
    assert f"making one from {world.data}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "changed", "told"),
    [
        ("data", {"folder": "/nowhere"}, "run run-1 read its data from /nowhere, which is not here"),
        ("data", {"folder": None}, "run run-1 read its data from a folder it does not name, which is not here"),
        ("data", {"sha256": "of other data"}, r"the data in /\S+ are no longer what run run-1 validated"),
        ("features", {"declarations_sha256": "0"}, r"the declarations in /\S+ are no longer what run run-1 validated"),
    ],
)
def test_data_that_are_gone_or_no_longer_what_was_validated_make_no_release(world, runs, part, changed, told, capsys):
    version = register(world.root, world.registry, f"unfit {part} {[*changed.values()]}".replace("/", ""), name=KEPT)
    rewrite(runs, "run-1", part, **changed)
    assert approve(world, version, runs) == 1
    assert re.search(told, capsys.readouterr().out)


def test_an_approval_whose_release_is_proved_after_a_rollback_does_not_put_it_in_service(world, runs, tmp_path, capsys):
    """The release of the version approved takes minutes; meanwhile another person rolls back."""
    first, second = (register(world.root, world.registry, weights, name="raced") for weights in ("raced-1", "raced-2"))
    for path in runs.glob("*/run_manifest.json"):
        facts = json.loads(path.read_text())
        facts["data"]["name"] = "raced"
        path.write_text(json.dumps(facts))
    where = ["--name", "raced", "--state", str(world.state), "--runs", str(runs)]
    assert main(["approve", first, "--reason", "the first", *where]) == 0
    reached, go, code = children.PROCESSES.Event(), children.PROCESSES.Event(), children.PROCESSES.SimpleQueue()
    told = ("main", ["approve", second, "--reason", "slowly", *where], ("lrm.serving.run", "_probe"))
    slow = children.PROCESSES.Process(target=children.paused, args=(*told, reached, go, code))
    slow.start()
    reached.wait()
    assert main(["rollback", *where]) == 0
    go.set()
    assert code.get() == 1
    slow.join()
    assert served_version(root_of(world.state, "raced")) == first
