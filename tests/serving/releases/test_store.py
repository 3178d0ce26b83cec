"""What comes out of a depot is what was pushed, or nothing."""

import hashlib
import json
import shutil
import uuid
from datetime import UTC, datetime

import pytest

from lrm.errors import RegistryError, ServingError
from lrm.registry import bundle as bundles
from lrm.serving.release import BUNDLE, ITEMS, Release, write_release
from lrm.serving.release_contents import write_list
from lrm.serving.releases import store as depots
from lrm.serving.releases.fetch import main
from lrm.serving.releases.store import Wanted, champion, digests, fetch, push
from tests.services import gcs, mlflow_server

NAME = "shop"
AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def released(root, version, *, weights=b"weights"):
    """A release folder whose bundle is whole."""
    folder = root / f"{version}-{uuid.uuid4().hex[:8]}"
    (folder / BUNDLE).mkdir(parents=True)
    (folder / BUNDLE / "weights").write_bytes(weights)
    files = bundles.digest(folder / BUNDLE)
    content = bundles.content_sha256(files)
    (folder / BUNDLE / bundles.BUNDLE).write_text(json.dumps({"format": 1, "content_sha256": content, "files": files}))
    (folder / ITEMS).write_bytes(b"items")
    (folder / "online").mkdir()
    (folder / "online" / "online.db").write_bytes(version.encode() * 100_000)
    write_release(Release(folder, NAME, version, AS_OF, {"user_id": "int64", "item_id": "int64"}))
    return folder


@pytest.fixture
def depot(tmp_path):
    return tmp_path / "depot"


@pytest.fixture
def pushed(tmp_path, depot):
    """A release, and its digest."""
    folder = released(tmp_path, "1")
    return folder, push(folder, str(depot))[1]


def test_a_release_comes_out_as_it_went_in(tmp_path, depot, pushed):
    release = fetch(str(depot), Wanted(NAME), tmp_path / "out" / "release")
    assert (release.name, release.version, release.as_of) == (NAME, "1", AS_OF)
    assert digests(release.folder) == digests(pushed[0])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["release"]


def test_the_digest_of_a_release_is_that_of_its_list_of_files(depot, pushed):
    folder, sha256 = pushed
    listed = (depot / NAME / folder.name / "files.json").read_bytes()
    assert sha256 == hashlib.sha256(listed).hexdigest()
    of_items = {"bytes": 5, "sha256": hashlib.sha256(b"items").hexdigest()}
    assert json.loads(listed)["files"]["items.parquet"] == of_items


def test_current_a_version_and_a_name_each_lead_to_their_release(tmp_path, depot, pushed):
    again, second = released(tmp_path, "1", weights=b"same version, released again"), released(tmp_path, "2")
    for folder in (again, second):
        push(folder, str(depot))
    found = {
        pointer: digests(fetch(str(depot), Wanted(NAME, pointer), tmp_path / "out").folder)
        for pointer in ("current", "2", "1", pushed[0].name)
    }
    assert found == {
        "current": digests(second),
        "2": digests(second),
        "1": digests(again),
        pushed[0].name: digests(pushed[0]),
    }


def test_another_release_of_the_same_name_is_not_pushed(tmp_path, depot, pushed):
    folder, sha256 = pushed
    edited = shutil.copytree(folder, tmp_path / "edited" / folder.name)
    (edited / "history.sqlite").write_bytes(b"others")
    write_list(edited)
    with pytest.raises(
        ServingError, match=rf"holds shop/{folder.name} with sha256 {sha256}, .* a release never changes"
    ):
        push(edited, str(depot))
    assert fetch(str(depot), Wanted(NAME, sha256=sha256), tmp_path / "out").version == "1"


def test_pushing_again_changes_nothing(depot, pushed):
    before = digests(depot)
    assert push(pushed[0], str(depot))[1] == pushed[1]
    assert digests(depot) == before


@pytest.mark.parametrize("path", ["items.parquet", "online/online.db", "bundle/weights", "files.json"])
def test_a_changed_file_is_refused_and_what_was_there_stays(tmp_path, depot, pushed, path):
    out = tmp_path / "out"
    before = digests(fetch(str(depot), Wanted(NAME), out).folder)
    held = depot / NAME / pushed[0].name / path
    held.write_bytes(held.read_bytes() + b" ")
    with pytest.raises(ServingError, match=rf"{path} was changed since it was pushed \(expected sha256"):
        fetch(str(depot), Wanted(NAME), out)
    assert digests(out) == before


def test_another_digest_than_the_one_asked_for_is_refused(tmp_path, depot, pushed):
    assert fetch(str(depot), Wanted(NAME, sha256=pushed[1]), tmp_path / "out").version == "1"
    push(released(tmp_path, "2"), str(depot))
    with pytest.raises(ServingError, match=f"current of shop is release 2-.* expected {pushed[1]}"):
        fetch(str(depot), Wanted(NAME, sha256=pushed[1]), tmp_path / "out")


def test_a_bundle_other_than_the_registered_one_is_refused(tmp_path, depot, pushed):
    with pytest.raises(ServingError, match="but the registry holds 00ff under that version"):
        fetch(str(depot), Wanted(NAME, content_sha256="00ff"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


OUTSIDE = ["../../evil", "/etc/evil", "a/../../evil", "a//b", "./a", ".hidden", "a\\..\\b", "", "files.json", "a/\0"]


def relisted(depot, folder, files):
    """The depot after somebody who can write to it gave a release another list, and the digest of that."""
    listed = depot / NAME / folder.name / "files.json"
    own = hashlib.sha256(json.dumps(files, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    listed.write_text(json.dumps({"files": files, "sha256": own}))
    pointer = {"release": folder.name, "sha256": hashlib.sha256(listed.read_bytes()).hexdigest()}
    (depot / NAME / "current.json").write_text(json.dumps(pointer))


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_list_that_names_a_file_outside_the_release_is_refused(tmp_path, depot, pushed, path):
    relisted(depot, pushed[0], {path: {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}})
    with pytest.raises(ServingError, match="outside the release"):
        fetch(str(depot), Wanted(NAME), tmp_path / "out" / "release")
    assert not (tmp_path / "out" / "release").exists()
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("sha256", ["", None, 0, "00ff", "g" * 64, "A" * 64, ["0" * 64], "0" * 64 + "\n"])
def test_a_digest_that_is_none_is_refused_wherever_it_stands(tmp_path, depot, pushed, sha256):
    relisted(depot, pushed[0], {"items.parquet": {"bytes": 5, "sha256": sha256}})
    with pytest.raises(ServingError, match="is no list of a release's files"):
        fetch(str(depot), Wanted(NAME), tmp_path / "out")
    pointer = depot / NAME / "current.json"
    for facts in ({"release": pushed[0].name, "sha256": sha256}, {"release": pushed[0].name}, [], None):
        pointer.write_text(json.dumps(facts))
        with pytest.raises(ServingError, match=r"names no release and digest \(64 hex digits\)"):
            fetch(str(depot), Wanted(NAME), tmp_path / "out")
    if sha256:
        with pytest.raises(ServingError, match="a digest is 64 hex digits"):
            fetch(str(depot), Wanted(NAME, sha256=sha256), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../shop", "a/b", "..", ".hidden", "", "a\\b", "/etc", "a\0"])
def test_a_name_that_leads_elsewhere_is_refused_wherever_it_comes_from(tmp_path, depot, pushed, name):
    for wanted in (Wanted(name), Wanted(NAME, name)):
        with pytest.raises(ServingError, match="one part of a path is asked for"):
            fetch(str(depot), wanted, tmp_path / "out")
    pointer = {"release": name, "sha256": pushed[1]}
    (depot / NAME / "current.json").write_text(json.dumps(pointer))
    with pytest.raises(ServingError, match="names no release and digest"):
        fetch(str(depot), Wanted(NAME), tmp_path / "out")
    for facts in ({"name": name}, {"version": name}):
        folder = released(tmp_path, "3")
        write_release(Release(folder, NAME, "3", AS_OF, {})._replace(**facts))
        with pytest.raises(ServingError, match="one part of a path is asked for"):
            push(folder, str(depot))


def test_what_is_fetched_without_a_digest_is_called_unpinned(tmp_path, depot, pushed, capsys):
    asked = ["--depot", str(depot), "--name", NAME, "--to", str(tmp_path / "out")]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert ("unpinned" in said, "verified" in said, pushed[1] in said) == (True, False, True)
    assert main([*asked, "--sha256", pushed[1]]) == 0
    said = capsys.readouterr().out
    assert ("unpinned" in said, "verified" in said, pushed[1] in said) == (False, True, True)


def test_an_empty_depot_says_how_to_fill_it(tmp_path, depot):
    with pytest.raises(
        ServingError, match=r"holds no shop/7\.json; put a release there: python -m lrm.serving.releases.fetch"
    ):
        fetch(str(depot), Wanted(NAME, "7"), tmp_path / "out")


def test_a_release_whose_bundle_was_changed_is_not_pushed(tmp_path, depot):
    folder = released(tmp_path, "1")
    (folder / BUNDLE / "weights").write_bytes(b"others")
    with pytest.raises(ServingError, match="weights was changed"):
        push(folder, str(depot))
    assert not depot.exists()


def test_a_bucket_is_a_depot_too(tmp_path, monkeypatch):
    from google.cloud import storage

    with gcs() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        depots._client.cache_clear()
        bucket = f"depot-{uuid.uuid4().hex[:8]}"
        storage.Client(project="test").create_bucket(bucket)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
        folder, depot = released(tmp_path, "1"), f"gs://{bucket}/serving"
        name, sha256 = push(folder, depot)
        assert digests(fetch(depot, Wanted(NAME, name, sha256), tmp_path / "out").folder) == digests(folder)
        with pytest.raises(ServingError, match=r"holds no shop/2\.json"):
            fetch(depot, Wanted(NAME, "2"), tmp_path / "out")
        depots._client.cache_clear()


def test_a_bucket_without_credentials_is_an_error_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    depots._client.cache_clear()
    assert main(["--depot", "gs://any", "--name", NAME, "--to", str(tmp_path / "out")]) == 1
    assert "error: cannot use gs://any: DefaultCredentialsError" in capsys.readouterr().err


def test_the_champion_is_the_version_that_the_registry_names(tmp_path, depot, pushed, capsys):
    from mlflow import MlflowClient

    content = bundles.verify(pushed[0] / BUNDLE)["content_sha256"]
    push(released(tmp_path, "2"), str(depot))
    with mlflow_server() as address:
        model = f"{NAME}-{uuid.uuid4().hex[:8]}"
        with pytest.raises(RegistryError, match=f"names no champion of '{model}'"):
            champion(address, model)
        client = MlflowClient(address, address)
        client.create_registered_model(model)
        client.create_model_version(model, "s3://elsewhere/1", tags={"content_sha256": content})
        client.set_registered_model_alias(model, "champion", "1")
        assert champion(address, model) == ("1", content)
        client.set_model_version_tag(model, "1", "content_sha256", "")
        with pytest.raises(RegistryError, match="has no digest of its bundle"):
            champion(address, model)
        client.set_model_version_tag(model, "1", "content_sha256", content)
        (depot / model).symlink_to(depot / NAME)
        asked = ["--depot", str(depot), "--name", model, "--registry", address, "--to", str(tmp_path / "out")]
        assert main(asked) == 0
    said = capsys.readouterr().out
    assert "fetched shop version 1, data as of 2024-01-01 00:00 UTC, unpinned: " in said
    assert "its bundle is the registered one" in said
    with pytest.raises(RegistryError, match=r"the registry http://127\.0\.0\.1:9 cannot be reached"):
        champion("http://127.0.0.1:9", model)


def test_the_command_pushes_fetches_and_says_what_is_wrong(tmp_path, depot, capsys):
    folder = released(tmp_path, "1")
    assert main(["--push", str(folder), "--depot", str(depot)]) == 0
    assert f"pushed {folder.name} to {depot}, sha256 " in capsys.readouterr().out
    fetching = ["--depot", str(depot), "--name", NAME, "--to", str(tmp_path / "out")]
    assert main([*fetching, "--release", "current", "--sha256", "", "--registry", ""]) == 0
    assert main([*fetching, "--release", "9"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        main(["--depot", str(depot), "--to", str(tmp_path)])
    with pytest.raises(SystemExit):
        main([*fetching, "--release", "1", "--registry", "http://127.0.0.1:1"])
    said = capsys.readouterr().err
    assert "--to needs --name" in said
    assert "leave --release out" in said
