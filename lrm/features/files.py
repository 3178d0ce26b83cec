"""The files of a data folder. A path is a name and never a pattern: `shop[1]` is not `shop1`."""

from __future__ import annotations

from pathlib import Path

from lrm.errors import DataError

DATASET = "dataset.json"


def files_of(data: Path) -> list[Path]:
    """What the content of a data folder consists of, sorted: `dataset.json` and the tables.

    Raises:
        DataError: one of them is no file.
    """
    found = sorted([data / DATASET, *data.glob("*.parquet")])
    for path in found:
        require_file(path)
    return found


def require_file(path: Path) -> None:
    """See that a table is one file.

    Raises:
        DataError: it is a folder, a link to nothing, or not there.
    """
    if path.is_dir():
        raise DataError(
            f"{path} is a folder, and a table is one Parquet file; write the parts in it, as Spark leaves them, into "
            "one file, with polars: scan_parquet(FOLDER).sink_parquet(FILE)"
        )
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path} is a link to {path.readlink()}, which is not there; mend the link")
    if not path.is_file():
        raise DataError(f"{path} is missing; docs/artifacts.md lists the files of a data folder")
