"""A person puts a version in service that no roll-out has ever made a release of."""

import json

import pytest

from lrm import manifest
from lrm.serving.release import CURRENT, read_release, root_of
from pipeline import main
from tests.serving.conftest import NAME, register

KEPT = "kept-back"


@pytest.fixture
def runs(world, tmp_path):
    """A folder of runs whose latest is one on the shop's data."""
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    asked = {"model_name": KEPT, "data": str(world.data), "feature_repo": str(world.feature_repo), "as_of": ""}
    asked |= {"data_version": "", "preset": "tiny", "seed": 0}
    manifest.begin(folder, arguments=asked, configuration={}, declarations_sha256="", code={})
    return folder.parent


def approve(world, version, runs):
    where = ["--name", KEPT, "--state", str(world.state), "--runs", str(runs)]
    return main(["approve", version, "--reason", "wanted by the shop", *where])


def test_its_release_is_made_from_the_data_of_the_latest_run(world, runs, tmp_path, capsys):
    version = register(world.root, world.registry, "waits", name=KEPT)
    assert approve(world, version, tmp_path / "none") == 1
    assert "has no run whose data it could be made from, so servers go on as they are" in capsys.readouterr().out
    assert approve(world, version, runs) == 0
    printed = capsys.readouterr().out
    assert f"no release of version {version} is kept; making one from {world.data}" in printed
    release = read_release((root_of(world.state, KEPT) / CURRENT).resolve())
    assert (release.name, release.version) == (KEPT, version)
    assert f"in service: {release.folder}" in printed
    assert world.release.name == NAME  # the other model's servers go on as they were


def test_data_that_are_gone_make_no_release(world, runs, capsys):
    version = register(world.root, world.registry, "gone", name=KEPT)
    path = runs / "run-1" / manifest.RUN_MANIFEST
    facts = json.loads(path.read_text())
    facts["data"]["folder"] = str(world.data / "gone")
    path.write_text(json.dumps(facts))
    assert approve(world, version, runs) == 1
    assert "has no run whose data it could be made from" in capsys.readouterr().out
