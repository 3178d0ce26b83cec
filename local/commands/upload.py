"""`python pipeline.py upload RUN gs://...`: copy a run's report, manifest and bundle to a bucket, or go on with it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from local import run_layout

HELP = "copy a run's report, manifest, summary and bundle to a bucket, or go on with an interrupted copy"


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("upload", help=HELP, description=f"{HELP[0].upper()}{HELP[1:]}.")
    parser.add_argument("run", metavar="RUN", help="a run's id, its folder, or latest")
    parser.add_argument(
        "address", metavar="gs://BUCKET/PREFIX", help="where the copy goes, in a folder named as the run"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Copy."""
    from local.upload import upload

    upload(run_layout.find_run(asked.run, asked.runs), asked.address)
    return 0
