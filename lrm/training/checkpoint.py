"""Checkpoints: enough to go on from a killed run and end exactly where an unbroken one would."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from lrm.storage import whole_file

CHECKPOINT_ROOT = "LRM_CHECKPOINTS"
"""Folder that outlives a killed run; without it, no checkpoint is kept."""
PACKAGE = Path(__file__).parent.parent


def identity(*parts: str, package: Path = PACKAGE) -> str:
    """Name the training that these parts (data snapshot, configuration, seed, start weights) decide.

    The code that trains counts as well, in all subfolders: a run never resumes from a checkpoint of other code.

    Args:
        parts: texts that decide the training.
        package: folder that holds the rooms with the code.
    """
    paths = [path for room in ("tokens", "model", "training") for path in sorted((package / room).rglob("*.py"))]
    code = [path.read_text() for path in paths]
    return hashlib.sha256("\0".join([*parts, *code]).encode()).hexdigest()[:16]


def folder_for(*parts: str) -> Path | None:
    """Where the training of this `identity` keeps its checkpoint."""
    root = os.environ.get(CHECKPOINT_ROOT)
    return Path(root) / identity(*parts) if root else None


def save(folder: Path | None, state: dict[str, Any]) -> None:
    """Write atomically, replacing the last one."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "checkpoint.pt") as partial:
        torch.save(state, partial)


def load(folder: Path | None) -> dict[str, Any] | None:
    """The last checkpoint, or None."""
    path = folder / "checkpoint.pt" if folder else None
    if path is None or not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def discard(folder: Path | None) -> None:
    """Forget the checkpoint of a finished run."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
