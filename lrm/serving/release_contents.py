"""What a release consists of, file by file: nothing of it is read before all of it was compared.

    files.json  {"files": {path: {"bytes", "sha256"}}, "sha256": of `files`, as compact JSON with sorted keys}

The sha256 of `files.json` is the release's *digest*: whoever names it names every file. Nothing in a release changes
while it is served, new events lie beside it, so a file that is missing, added or changed is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from lrm.errors import ServingError
from lrm.storage import sha256_of

FILES = "files.json"
AGAIN = "roll the version out again, or serve another release"


class File(NamedTuple):
    """What is listed of a file."""

    n_bytes: int
    sha256: str


def is_sha256(value: Any) -> bool:
    """Whether it is a digest: 64 hex digits, in small letters."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def is_one_part(name: Any) -> bool:
    """Whether it is a name that leads nowhere else: one part of a path, not hidden."""
    is_plain = isinstance(name, str) and name != "" and name[0] != "." and name == name.strip()
    return is_plain and not any(character in name for character in "/\\\0\n")


def write_list(folder: Path) -> str:
    """List every file of a finished release, and return its digest.

    Raises:
        ServingError: something in the folder is a link.
    """
    files = {
        path: {"bytes": (folder / path).stat().st_size, "sha256": sha256_of(folder / path)} for path in _paths(folder)
    }
    (folder / FILES).write_text(json.dumps({"files": files, "sha256": _of(files)}, indent=1) + "\n")
    return sha256_of(folder / FILES)


def verify(folder: Path) -> str:
    """Compare every file of a release with its list, and return the release's digest.

    Raises:
        ServingError: a file is missing, changed or not listed, or the list itself was changed.
    """
    path = folder / FILES
    if not path.is_file():
        raise ServingError(
            f"{path} is missing: nothing says what the release must hold, or it was rolled out before its files were "
            f"digested; {AGAIN}"
        )
    listed, seen = read_list(path), _paths(folder)
    for name in sorted({*listed, *seen}):
        if name not in seen:
            raise ServingError(f"{folder / name} is missing since it was built; {AGAIN}")
        if name not in listed:
            raise ServingError(f"{folder / name} was added since the release was built; remove it, or {AGAIN}")
        compare(folder / name, listed[name], what=str(folder / name), since="it was built", do=AGAIN)
    return sha256_of(path)


def compare(path: Path, listed: File, *, what: str, since: str, do: str) -> None:
    """Refuse a file that is not the one listed.

    Raises:
        ServingError: it is not.
    """
    n_bytes = path.stat().st_size
    seen = sha256_of(path) if n_bytes == listed.n_bytes else f"{n_bytes:,} bytes in place of {listed.n_bytes:,}"
    if seen != listed.sha256:
        raise ServingError(f"{what} was changed since {since} (expected sha256 {listed.sha256}, seen {seen}); {do}")


def read_list(path: Path) -> dict[str, File]:
    """What a `files.json` lists, each path inside the release.

    Raises:
        ServingError: it is no such list, was changed, or names a file outside the release.
    """
    try:
        held = json.loads(path.read_bytes())
        files = {name: File(one["bytes"], one["sha256"]) for name, one in held["files"].items()}
        is_list = held["sha256"] == _of(held["files"]) and all(
            isinstance(one.n_bytes, int) and is_sha256(one.sha256) for one in files.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_list = False
    if not is_list:
        raise ServingError(f"{path} was changed since it was written, or is no list of a release's files; {AGAIN}")
    for name in files:
        if not all(is_one_part(part) for part in name.split("/")) or name == FILES:
            raise ServingError(f"{path} names {name!r}, outside the release; {AGAIN}")
    return files


def _paths(folder: Path) -> list[str]:
    """Every file but the list, by path relative to the folder."""
    found = sorted(folder.rglob("*"))
    if links := [path for path in found if path.is_symlink()]:
        raise ServingError(f"{links[0]} is a link: what it leads to is no part of the release; {AGAIN}")
    paths = [path.relative_to(folder).as_posix() for path in found if not path.is_dir()]
    return [path for path in paths if path != FILES]


def _of(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
