"""Format numbers of the JSON files that outlive the code that wrote them.

A file of another format is refused in words, never read as if it were one of this version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT = "format"
BUNDLE, EVALUATION, SUMMARY = 1, 1, 1
"""Of `bundle.json`, `evaluation.json` and `summary.json`. A number grows when a reader of the old form would err."""


def difference(content: Mapping[str, Any], number: int) -> str:
    """Say how a file's format differs from the one that this version reads; empty where it does not.

    Args:
        content: of the file.
        number: the format that this version reads.
    """
    written = content.get(FORMAT)
    if written == number:
        return ""
    seen = "no format number" if written is None else f"format {written!r}"
    return f"has {seen}, and this version reads format {number}"
