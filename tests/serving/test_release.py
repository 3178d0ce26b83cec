"""Releases come into service whole, and old ones go."""

import json
import os
import shutil
import threading
from datetime import UTC, datetime

import pytest

from lrm.content_digest import content_sha256
from lrm.errors import RegistryError, ServingError
from lrm.serving.release import (
    Release,
    latest_releases,
    new_folder,
    put_in_service,
    read_release,
    remove_unfinished,
    serve_again,
    served_version,
    write_release,
)
from lrm.serving.release_contents import write_list

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def built(root, version, *, age_s=0):
    """A release beside its place."""
    folder = new_folder(root, version)
    (folder / "items.parquet").write_bytes(b"")
    release = Release(folder, "shop", version, AS_OF, {"user_id": "int64", "item_id": "string"})
    write_release(release)
    written = (folder / "release.json").stat().st_mtime - age_s
    os.utime(folder / "release.json", (written, written))
    return release


def with_bundle(release):
    (release.folder / "bundle").mkdir()
    manifest = {"format": 1, "content_sha256": content_sha256({}), "files": {}}
    (release.folder / "bundle/bundle.json").write_text(json.dumps(manifest))
    write_list(release.folder)
    return release


def versions(root):
    """Version of each folder there; the link is checked apart."""
    return sorted(path.name.split("-")[0] for path in root.iterdir() if not path.is_symlink())


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def in_service(root):
    return read_version(root / "current")


def read_version(folder):
    return json.loads((folder / "release.json").read_text())["version"]


def test_the_release_in_service_and_the_one_before_it_stay(tmp_path):
    for place, version in enumerate(("1", "2", "3")):
        put_in_service(built(tmp_path, version, age_s=10 - place))
    assert versions(tmp_path) == ["2", "3"]
    assert in_service(tmp_path) == "3"
    assert list(latest_releases(tmp_path)) == ["3", "2"]


def test_a_version_rolled_out_again_replaces_its_own_release(tmp_path):
    put_in_service(built(tmp_path, "1", age_s=9))
    old = put_in_service(built(tmp_path, "2", age_s=8))
    new = put_in_service(built(tmp_path, "2"))
    assert versions(tmp_path) == ["1", "2"]
    assert (tmp_path / "current").resolve() == new != old


def test_the_release_of_an_earlier_version_is_served_again(tmp_path):
    old = put_in_service(with_bundle(built(tmp_path, "1", age_s=9)))
    put_in_service(built(tmp_path, "2"))
    assert served_version(tmp_path) == "2"
    assert serve_again(tmp_path, "1") == old
    assert (served_version(tmp_path), versions(tmp_path)) == ("1", ["1", "2"])
    assert serve_again(tmp_path, "7") is None
    (old / "bundle/weights.safetensors").write_text("evil")
    with pytest.raises(ServingError, match=r"weights\.safetensors was added"):
        serve_again(tmp_path, "1")


def test_what_was_in_service_stays_to_roll_back_to_however_old_it_is(tmp_path):
    back = put_in_service(with_bundle(built(tmp_path, "1", age_s=9)))
    put_in_service(built(tmp_path, "2", age_s=8))
    serve_again(tmp_path, "1")
    put_in_service(built(tmp_path, "3"))
    assert versions(tmp_path) == ["1", "3"]
    assert serve_again(tmp_path, "1") == back


def test_a_release_on_its_way_out_is_not_served_again(tmp_path, monkeypatch):
    for place, version in enumerate(("1", "2")):
        put_in_service(with_bundle(built(tmp_path, version, age_s=10 - place)))
    found, remove = [], shutil.rmtree
    rollback = threading.Thread(target=lambda: found.append(serve_again(tmp_path, "1")))

    def removed_late(folder):
        rollback.start()
        rollback.join(timeout=0.2)
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", removed_late)
    put_in_service(built(tmp_path, "3"))
    rollback.join()
    assert (found, in_service(tmp_path)) == ([None], "3")


def test_a_release_half_removed_is_none(tmp_path, monkeypatch):
    for place, version in enumerate(("1", "2")):
        put_in_service(built(tmp_path, version, age_s=10 - place))
    three = built(tmp_path, "3")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            put_in_service(three)
    assert (list(latest_releases(tmp_path)), in_service(tmp_path)) == (["3", "2"], "3")
    remove_unfinished(tmp_path)
    assert versions(tmp_path) == ["2", "3"]


def test_what_a_killed_roll_out_left_is_removed(tmp_path):
    put_in_service(built(tmp_path, "1"))
    built(tmp_path, "2")
    remove_unfinished(tmp_path)
    assert versions(tmp_path) == ["1"]


def test_a_release_of_the_same_version_killed_before_the_link_moves_leaves_the_one_in_service(tmp_path, monkeypatch):
    place = put_in_service(built(tmp_path, "1", age_s=9))

    again = built(tmp_path, "1")
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.symlink_to", interrupted)
        with pytest.raises(KeyboardInterrupt):
            put_in_service(again)
    remove_unfinished(tmp_path)
    assert (tmp_path / "current").resolve() == place
    assert in_service(tmp_path) == "1"
    put_in_service(built(tmp_path, "1"))
    assert versions(tmp_path) == ["1"]


def test_a_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(ServingError, match=r"is no release: it has no release\.json"):
        read_release(tmp_path)
    with pytest.raises(RegistryError, match="is no bundle"):
        read_release(built(tmp_path, "1").folder)
