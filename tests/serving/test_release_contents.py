"""A release is loaded as it was built, to the last bit of each of its files, or not at all."""

import json
import re
import shutil

import pytest

from lrm.errors import ServingError
from lrm.serving.release import read_release
from lrm.serving.release_contents import FILES, verify, write_list
from lrm.serving.releases.store import digests
from tests.serving.conftest import ask, copied, serving


@pytest.fixture
def folder(world, tmp_path):
    return copied(world, tmp_path / "release").folder


def test_one_bit_in_any_file_is_found_and_the_file_named(folder):
    files = digests(folder)
    assert {FILES, "release.json", "items.parquet", "history.sqlite", "online/online.db", "online/registry.db"} < set(
        files
    )
    assert {"feature_repo/feature_store.yaml", "feature_repo/definitions.py", "bundle/bundle.json"} < set(files)
    for name in files:
        path = folder / name
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(ServingError, match=rf"{re.escape(str(path))} was changed since"):
                read_release(folder)
        path.write_bytes(whole)
    assert read_release(folder).sha256


def test_a_file_that_is_cut_missing_or_added_is_found_and_named(folder):
    whole = (folder / "history.sqlite").read_bytes()
    (folder / "history.sqlite").write_bytes(whole[:-1])
    with pytest.raises(ServingError, match=rf"history\.sqlite was changed .* bytes in place of {len(whole):,}"):
        read_release(folder)
    (folder / "history.sqlite").unlink()
    with pytest.raises(ServingError, match=r"history\.sqlite is missing"):
        read_release(folder)
    (folder / "history.sqlite").write_bytes(whole)
    (folder / "feature_repo" / "more.py").write_text("import os")
    with pytest.raises(ServingError, match=r"feature_repo/more\.py was added"):
        read_release(folder)


def test_what_lies_elsewhere_is_no_part_of_a_release(folder, tmp_path):
    (folder / "online" / "online.db").rename(tmp_path / "online.db")
    (folder / "online" / "online.db").symlink_to(tmp_path / "online.db")
    for look in (verify, write_list):
        with pytest.raises(ServingError, match=r"online\.db is a link"):
            look(folder)


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"files": {}, "sha256": null}', "[" * 100_000])
def test_a_list_that_is_none_is_refused(folder, content):
    (folder / FILES).write_text(content)
    with pytest.raises(ServingError, match=r"files\.json was changed since it was written, or is no list"):
        read_release(folder)


def test_a_release_of_before_files_were_digested_says_what_to_do(folder):
    (folder / FILES).unlink()
    with pytest.raises(ServingError, match=r"files\.json is missing: .* roll the version out again"):
        read_release(folder)


def test_nothing_in_a_release_changes_while_it_is_served_and_takes_events(folder):
    with serving(read_release(folder)) as address:
        assert ask(address, "/v1/events", events=[{"user_id": 1, "item_id": 101}])[0] == 200
        assert ask(address, "/v1/recommend", user_id=1)[0] == 200
    assert read_release(folder).version == "1"


def test_the_digest_of_a_release_is_that_of_the_same_files_and_of_no_others(folder, tmp_path):
    again = shutil.copytree(folder, tmp_path / "again")
    assert verify(again) == verify(folder)
    (again / "feature_repo" / "more.py").write_text("")
    assert write_list(again) != verify(folder)


def test_a_server_says_which_digest_it_serves_and_whether_it_was_named(world, tmp_path, capsys):
    from lrm.serving.__main__ import main

    release = world.release
    with serving(release) as address:
        model = ask(address, "/v1/model")[1]
    assert (model["sha256"], model["digest"]) == (release.sha256, "unpinned")
    with serving(release, is_pinned=True) as address:
        assert ask(address, "/v1/model")[1]["digest"] == "pinned"
    assert main(["--release", str(release.folder), "--sha256", "0" * 64]) == 1
    assert f"has the sha256 {release.sha256}, expected {'0' * 64}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--follow", str(release.folder), "--sha256", release.sha256])
    assert "leave --follow out" in capsys.readouterr().err
    assert json.loads((release.folder / FILES).read_text())["files"]["release.json"]["sha256"]
