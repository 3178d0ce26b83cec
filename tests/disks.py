"""A small disk of its own for a test: one that can be full, or read-only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, *, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a disk of a size such as `400k` at a folder; gives what changes an option of it, such as `ro` or `size=9m`.

    Skips the test where this user may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")

    def change(option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
