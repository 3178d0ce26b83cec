"""The content of a folder as one digest: its files, and not who wrote them when."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lrm.record import RECORD
from lrm.storage import sha256_of

BUNDLE = "bundle.json"
"""What a bundle says of itself."""
WEIGHTS = "weights.safetensors"
"""The weights of a model: two folders with the same hold the same model, whoever trained it."""
NOT_CONTENT = frozenset({BUNDLE, RECORD})
"""Files that say how a folder came about, and so differ between two builds of the same content."""


def digest(folder: Path) -> dict[str, str]:
    """The sha256 of every content file, by path relative to the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_CONTENT)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def content_sha256(files: dict[str, str]) -> str:
    """One digest for all files."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def model_sha256(model: Path) -> str:
    """The digest of a model folder without its hidden files: what `evaluation.json` calls `challenger_content`."""
    return content_sha256({name: sha256 for name, sha256 in digest(model).items() if not name.startswith(".")})
