"""Prepare a built-in data set: `python -m lrm.features.datasets NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrm.errors import LrmError
from lrm.features.datasets.prepare import BUILDS, prepare
from lrm.features.datasets.sources import ROOT_VARIABLE


def main() -> int:
    """Prepare one data folder and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m lrm.features.datasets", description=__doc__)
    parser.add_argument("name", choices=sorted(BUILDS), help="which data set")
    parser.add_argument(
        "--data-root",
        type=Path,
        help=f"folder with ml-100k/, ml-1m/ and amazon-beauty/ as published (default: ${ROOT_VARIABLE}); "
        "complete-journey comes from an installed package",
    )
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of data folders (default: data)")
    given = parser.parse_args()
    try:
        print(prepare(given.name, data_root=given.data_root, out=given.out))
    except LrmError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
