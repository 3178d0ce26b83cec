"""Files that are whole or not there, and their digests: the one place that renames what was written, and hashes it.

A file is written beside its place, under a hidden name, and then renamed. A reader sees the old file or the new one,
never a part of it. A process that is killed leaves the hidden file, which nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; once the block ends, the file stands at `path`. An error leaves `path` as it was.

    Args:
        path: the place of the file. Its folder must exist. Several processes may write the same place at once: each
            writes a file of its own, and the last one stays.

    Yields:
        The path to write to, in the same folder.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with whole_file(path) as partial:
        partial.write_text(text)


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Write a JSON file whole, indented, with a line end.

    Args:
        path: the place of the file.
        content: what it holds.
        options: of `json.dumps`.
    """
    write_text(path, json.dumps(content, indent=1, **options) + "\n")


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
