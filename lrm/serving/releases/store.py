"""A depot: where releases wait for the machines that serve them; a folder or a bucket, `gs://BUCKET[/PREFIX]`.

    <name>/<release>/...           the files of a release, which never change
    <name>/<release>/files.json    the list of all of them, with their digests (`lrm.serving.release_contents`)
    <name>/<pointer>.json          {"release": ..., "sha256": that of files.json}, written last

There is a pointer `current`, one for each version (its latest release) and one for each release. Nothing is taken from
a depot unless its digest is the one that was written when the release was pushed. Who can write to the depot can write
both, and a release holds declarations, which are code: only a digest that is named where the server is deployed
(`sha256`) says which release it is. One that is fetched without is *unpinned*.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lrm.errors import RegistryError, ServingError
from lrm.registry import bundle as bundles
from lrm.serving.release import BUNDLE, Release, read_release
from lrm.serving.release_contents import FILES, compare, is_one_part, is_sha256, read_list
from lrm.storage import sha256_of

BUCKET = "gs://"
CURRENT = "current"
CHAMPION = "champion"
TIMEOUT_S = 30


class Wanted(NamedTuple):
    """Which release to fetch, and what must be true of it."""

    name: str
    """The registered model."""
    pointer: str = CURRENT
    """`current`, a version, or the name of a release."""
    sha256: str = ""
    """The release's digest, as `push` gave it; "" takes the depot's word: it is unpinned."""
    content_sha256: str = ""
    """The digest of the bundle's content, as the registry holds it; "" asks for none."""


def push(folder: Path, depot: str) -> tuple[str, str]:
    """Put a release into a depot, its pointers last, and return its name and its digest.

    Pushing the same release again changes nothing but where `current` and the version point.

    Args:
        folder: the release, as roll_out wrote it.
        depot: a folder, or `gs://BUCKET[/PREFIX]`.

    Raises:
        ServingError: the folder is no release, the depot holds another of that name, or the bucket cannot be written.
        RegistryError: its bundle was changed.
    """
    folder = folder.resolve()
    release = read_release(folder)
    for name in (release.name, folder.name, release.version):
        _require_one_part(name, folder)
    place = f"{release.name}/{folder.name}"
    with tempfile.TemporaryDirectory() as scratch:
        pointer = Path(scratch, "pointer.json")
        _refuse_another(depot, f"{place}.json", release.sha256, pointer)
        for path in (*read_list(folder / FILES), FILES):
            _put(folder / path, depot, f"{place}/{path}")
        pointer.write_text(json.dumps({"release": folder.name, "sha256": release.sha256}))
        for name in (folder.name, release.version, CURRENT):
            _put(pointer, depot, f"{release.name}/{name}.json")
    return folder.name, release.sha256


def _refuse_another(depot: str, path: str, sha256: str, scratch: Path) -> None:
    """Whoever pinned a release's digest must find that release under its name for ever."""
    try:
        _take(depot, path, scratch)
    except ServingError as error:
        if isinstance(error.__cause__, FileNotFoundError):  # nothing of that name is there
            return
        raise
    held = _pointed(scratch, f"{depot}: {path}")["sha256"]
    if held != sha256:
        raise ServingError(
            f"{depot} holds {path.removesuffix('.json')} with sha256 {held}, and this folder has {sha256}: a release "
            "never changes, so this one was edited; roll the version out again"
        )


def fetch(depot: str, wanted: Wanted, to: Path) -> Release:
    """Take a release out of a depot, every file compared with its digest; `to` appears whole or not at all.

    Args:
        depot: a folder, or `gs://BUCKET[/PREFIX]`.
        wanted: which release.
        to: the folder to make; one that is there is replaced.

    Raises:
        ServingError: there is no such release, or a digest is not the expected one.
        RegistryError: the bundle was changed before the release was pushed.
    """
    for name in (wanted.name, wanted.pointer):
        _require_one_part(name, depot)
    if wanted.sha256 and not is_sha256(wanted.sha256):
        raise ServingError(f"a digest is 64 hex digits, got {wanted.sha256!r}; give the one that --push printed")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as scratch:
        release = Path(scratch, "release")
        release.mkdir()
        place = _listed(depot, wanted, release / FILES)
        for path, listed in read_list(release / FILES).items():
            _take(depot, f"{place}/{path}", release / path)
            compare(release / path, listed, what=f"{depot}: {path}", since="it was pushed", do="push it again")
        content = bundles.verify(release / BUNDLE)["content_sha256"]
        if wanted.content_sha256 not in ("", content):
            raise ServingError(
                f"{depot}: the bundle of {place} has the content {content}, but the registry holds "
                f"{wanted.content_sha256} under that version; push the registered version again"
            )
        shutil.rmtree(to, ignore_errors=True)
        release.rename(to)
    return read_release(to)


def _listed(depot: str, wanted: Wanted, to: Path) -> str:
    """Take the list of a release's files, and say where in the depot they are."""
    _take(depot, f"{wanted.name}/{wanted.pointer}.json", to)
    pointer = _pointed(to, f"{depot}: {wanted.name}/{wanted.pointer}.json")
    if wanted.sha256 not in ("", pointer["sha256"]):
        raise ServingError(
            f"{depot}: {wanted.pointer} of {wanted.name} is release {pointer['release']} with sha256 "
            f"{pointer['sha256']}, expected {wanted.sha256}; name the release that has that digest, or its new digest"
        )
    place = f"{wanted.name}/{pointer['release']}"
    _take(depot, f"{place}/{FILES}", to)
    if (seen := sha256_of(to)) != pointer["sha256"]:
        raise ServingError(
            f"{depot}: {place}/{FILES} was changed since it was pushed (expected sha256 {pointer['sha256']}, seen "
            f"{seen}); push it again"
        )
    return place


def _pointed(path: Path, where: str) -> dict[str, str]:
    """What a pointer says: a release, one part of a path, and its digest."""
    try:
        pointer: dict[str, str] = json.loads(path.read_bytes())
        is_pointer = is_one_part(pointer["release"]) and is_sha256(pointer["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        is_pointer = False
    if not is_pointer:
        raise ServingError(
            f"{where} names no release and digest (64 hex digits), got {path.read_bytes()[:200]!r}; push it again"
        )
    return pointer


def _require_one_part(name: str, where: object) -> None:
    if not is_one_part(name):
        raise ServingError(
            f"{where}: {name!r} cannot be the name of a model, a version or a release: one part of a path is asked "
            "for, without / and not hidden"
        )


def champion(server: str, name: str) -> tuple[str, str]:
    """The champion's version and the digest of its bundle's content, asked of an MLflow server.

    Args:
        server: its address, `http://HOST:PORT`.
        name: the registered model.

    Raises:
        RegistryError: the server cannot be reached, or knows no champion, or not the digest of its bundle.
    """
    asked = urllib.parse.urlencode({"name": name, "alias": CHAMPION})
    address = f"{server.rstrip('/')}/api/2.0/mlflow/registered-models/alias?{asked}"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
            version: dict[str, Any] = json.load(response)["model_version"]
    except urllib.error.HTTPError as error:
        raise RegistryError(
            f"{server} names no champion of {name!r} (status {error.code}); promote a version, or name a release"
        ) from error
    except OSError as error:
        raise RegistryError(f"the registry {server} cannot be reached ({error}); check its address") from error
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", ())}
    content = tags.get("content_sha256", "")
    if not is_sha256(content):
        raise RegistryError(
            f"{server}: version {version['version']} of {name!r} has no digest of its bundle (tag content_sha256, seen "
            f"{content!r}); register the model again"
        )
    return str(version["version"]), content


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file, by path relative to the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def _take(depot: str, path: str, to: Path) -> None:
    """Copy one file out of a depot."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        if depot.startswith(BUCKET):
            _download(depot, path, to)
        else:
            shutil.copyfile(Path(depot) / path, to)
    except FileNotFoundError as error:
        raise ServingError(
            f"{depot} holds no {path}; put a release there: "
            f"python -m lrm.serving.releases.fetch --push RELEASE --depot {depot}"
        ) from error


def _put(source: Path, depot: str, path: str) -> None:
    """Copy one file into a depot; a reader sees the old one or the new one."""
    if depot.startswith(BUCKET):
        with _faults(depot):
            _blob(depot, path).upload_from_filename(str(source))
        return
    target = Path(depot) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _download(depot: str, path: str, to: Path) -> None:
    from google.api_core.exceptions import NotFound

    with _faults(depot):
        try:
            _blob(depot, path).download_to_filename(str(to))
        except NotFound as error:
            raise FileNotFoundError(path) from error


@contextmanager
def _faults(depot: str) -> Iterator[None]:
    """Say what keeps a bucket from being read or written."""
    from lrm.registry.bucket import FAULTS

    try:
        yield
    except FAULTS as error:
        seen = str(error).splitlines()[0][:300]
        raise ServingError(
            f"cannot use {depot}: {type(error).__name__}: {seen}; see that the bucket exists, that you may use it and "
            "that the network reaches it"
        ) from error


def _blob(depot: str, path: str) -> Any:
    bucket, _, prefix = depot.removeprefix(BUCKET).partition("/")
    return _client().bucket(bucket).blob(str(PurePosixPath(prefix, path)))


@functools.cache
def _client() -> Any:
    """One client for all calls: it holds the connections, and finds the credentials once."""
    from google.cloud import storage

    return storage.Client()
