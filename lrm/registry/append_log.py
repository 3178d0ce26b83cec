"""A text that only grows, line by line: a file, or an object in a bucket.

Whoever extends it says what they have read, and is refused where that is no longer all: compare and swap. In a bucket
the generation decides; whoever extends a file holds a lock on it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from lrm.errors import RegistryError
from lrm.registry.address import BUCKET


class Text(NamedTuple):
    """What was read of a place."""

    content: bytes
    """Whole lines: a line torn by a kill is none."""
    generation: int
    """Of the object in a bucket; for a file, its length."""


def read(place: str) -> Text:
    """What a place holds; nothing where there is none yet.

    Args:
        place: a file's path, or `gs://BUCKET/PATH`.

    Raises:
        RegistryError: it cannot be read.
    """
    if place.startswith(BUCKET):
        from lrm.registry import bucket

        return Text(*bucket.read(place))
    try:
        content = Path(place).read_bytes()
    except FileNotFoundError:
        return Text(b"", 0)
    except OSError as error:
        raise fault(Path(place), error) from error
    return _whole(content)


def extend(place: str, seen: Text, lines: bytes) -> Text | None:
    """Add lines to a place that still holds what was seen.

    Returns:
        What it holds now; None where another writer came first, and nothing was written.

    Raises:
        RegistryError: it cannot be written.
    """
    if place.startswith(BUCKET):
        from lrm.registry import bucket

        content = seen.content + lines
        generation = bucket.replace(place, content, generation=seen.generation)
        return Text(content, generation) if generation else None
    try:
        return _extend_file(Path(place), seen, lines)
    except OSError as error:
        raise fault(Path(place), error) from error


def _extend_file(path: Path, seen: Text, lines: bytes) -> Text | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        file.seek(0)
        held = _whole(file.read())
        if held != seen:
            return None
        file.truncate(held.generation)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    return Text(seen.content + lines, seen.generation + len(lines))


def _whole(content: bytes) -> Text:
    whole = content[: content.rfind(b"\n") + 1]
    return Text(whole, len(whole))


def fault(path: Path, error: OSError) -> RegistryError:
    """What to say of a file of the ledger that cannot be used."""
    return RegistryError(
        f"the ledger {path} cannot be used: {error.strerror or error}; make room there, or make it readable and "
        "writable, then run the same command again: it goes on where this one stopped"
    )
