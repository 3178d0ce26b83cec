"""Where the published files are found on this machine, and whether they are the ones that were published."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from lrm.errors import DataError
from lrm.storage import sha256_of

ROOT_VARIABLE = "LRM_DATA_ROOT"
"""Names the data root where a command is told none."""


def installed_folder(package: str, *, install: str) -> Path:
    """The `data` folder inside an installed package, without importing it.

    Raises:
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(f"the package {package} is not installed; run `pip install {install}`")
    return Path(spec.origin).parent / "data"


def given_folder(data_root: Path | None, name: str, *, obtain: str) -> Path:
    """The folder of a data set under the data root, or the archive beside it as it was published.

    Args:
        data_root: None reads the root from the environment (`ROOT_VARIABLE`).
        name: of the data set, and of its folder.
        obtain: where its files are had, told when they are not found.

    Raises:
        DataError: no root was given, or it holds neither.
    """
    if data_root is None and (root := os.environ.get(ROOT_VARIABLE)):
        data_root = Path(root)
    if data_root is None:
        raise DataError(
            f"{name} is read from a folder of yours: give --data-root DIR or set {ROOT_VARIABLE} to the folder "
            f"that holds {name}/ or {name}.zip. {obtain}"
        )
    for path in (data_root / name, data_root / f"{name}.zip"):
        if path.exists():
            return path
    seen = ", ".join(sorted(path.name for path in data_root.iterdir())) if data_root.is_dir() else "no such folder"
    raise DataError(f"{data_root} holds neither {name}/ nor {name}.zip (it has: {seen or 'nothing'}). {obtain}")


def member(source: Path, name: str, *, obtain: str) -> bytes | None:
    """One file of a folder or a zip archive, wherever in it the file lies; None if it is not there.

    Raises:
        DataError: the archive is damaged.
    """
    if source.is_dir():
        found = sorted(path for path in source.rglob(name) if path.is_file())
        return found[0].read_bytes() if found else None
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.namelist() if entry.rsplit("/", 1)[-1] == name]
            return archive.read(entries[0]) if entries else None
    except zipfile.BadZipFile as error:
        raise DataError(f"{source} is no whole zip archive ({error}). {obtain}") from error


def members(source: Path, names: Iterable[str], *, obtain: str) -> dict[str, bytes]:
    """Several such files.

    Raises:
        DataError: one is missing, or the archive is damaged.
    """
    files = {}
    for name in names:
        content = member(source, name, obtain=obtain)
        if content is None:
            raise DataError(f"{source} has no file {name!r}. {obtain}")
        files[name] = content
    return files


def verified(folder: Path, sums: Mapping[str, str], *, obtain: str) -> dict[str, str]:
    """Check files against their published sha256, and give the sums back for the record.

    Raises:
        DataError: a file is missing or differs.
    """
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing. {obtain}")
        seen = sha256_of(path)
        if seen != expected:
            raise DataError(
                f"{path} has sha256 {seen}, expected {expected}: it is damaged or another version. {obtain}"
            )
    return dict(sums)
