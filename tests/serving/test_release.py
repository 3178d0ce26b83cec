"""Releases come into service whole, and old ones go."""

import os
from datetime import UTC, datetime

import pytest

from lrm.errors import RegistryError, ServingError
from lrm.serving.release import Release, put_in_service, read_release, remove_unfinished, write_release

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def built(root, version, *, age_s=0):
    """A release beside its place."""
    folder = root / f".{version}.partial"
    folder.mkdir(parents=True)
    release = Release(folder, "shop", version, AS_OF, {"user_id": "int64", "item_id": "string"})
    write_release(release)
    written = (folder / "release.json").stat().st_mtime - age_s
    os.utime(folder / "release.json", (written, written))
    return release


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_the_release_in_service_and_the_one_before_it_stay(tmp_path):
    for place, version in enumerate(("1", "2", "3")):
        put_in_service(built(tmp_path, version, age_s=10 - place))
    assert names(tmp_path) == ["2", "3", "current"]
    assert (tmp_path / "current").resolve().name == "3"


def test_a_version_rolled_out_again_replaces_its_own_release(tmp_path):
    put_in_service(built(tmp_path, "1", age_s=9))
    put_in_service(built(tmp_path, "2", age_s=8))
    (tmp_path / "2" / "stale").write_text("")
    put_in_service(built(tmp_path, "2"))
    assert names(tmp_path) == ["1", "2", "current"]
    assert not (tmp_path / "2" / "stale").exists()


def test_what_a_killed_roll_out_left_is_removed(tmp_path):
    put_in_service(built(tmp_path, "1"))
    built(tmp_path, "2")
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["1", "current"]


def test_a_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(ServingError, match=r"is no release: it has no release\.json"):
        read_release(tmp_path)
    with pytest.raises(RegistryError, match="is no bundle"):
        read_release(built(tmp_path, "1").folder)
