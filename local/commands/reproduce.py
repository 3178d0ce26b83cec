"""`python pipeline.py reproduce RUN`: run it again from its manifest, and compare what came out."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from local import run_layout
from lrm import manifest
from lrm.errors import DataError

HELP = "run a past run again, and compare snapshot, metrics and weights"
DESCRIPTION = (
    "Run the data, instant, preset and seed of a past run again, every step, in a folder of its own, with an empty "
    "registry: nothing in service changes. The exit code is 1 where snapshot, metrics or weights differ."
)
N_NAMED = 6
"""Packages named at most, of those whose version differs."""
ENVIRONMENT = ("python", "image", "machine", "threads")
Json = dict[str, Any]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("reproduce", help=HELP, description=DESCRIPTION)
    parser.add_argument("run", metavar="RUN", help="a run's id, its folder, or latest")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="by how much a metric may differ, for another kind of processor; above 0 weights are not compared",
    )
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Run again, print the comparison, and say by the exit code whether it is the same."""
    from local.prepare import start_run
    from local.runner import run

    before = manifest.read(run_layout.find_run(asked.run, asked.runs))
    if before["outcome"] is None:
        raise DataError(
            f"run {before['run_id']} never judged a model, so there is nothing to compare; take another run"
        )
    data, declarations = (folder_of(before, part) for part in ("data", "features"))
    home = asked.runs / run_layout.REPRODUCTIONS
    home.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = before["environment"]["threads"]  # sums depend on how they are shared out
    with tempfile.TemporaryDirectory(prefix=".state-", dir=home) as state:
        run_dir, arguments = start_run(
            data,
            declarations,
            runs=home,
            state=Path(state),
            as_of=before["data"]["asked_as_of"],
            preset_name=before["preset"],
            seed=before["seed"],
        )
        print(f"Run {run_dir.name}: {before['run_id']} again", flush=True)
        run(asked.workflow, arguments, run_dir, reuse=False)
    after = manifest.read(run_dir)
    rows = outcomes(before, after, tolerance=asked.tolerance)
    print("\n".join(["", *_table(rows), "", *told(causes(before, after), rows)]))
    return 0 if all(row[-1] == "same" for row in rows) else 1


def folder_of(facts: Json, part: str) -> Path:
    """The folder of the data or of the feature definitions that a run read.

    Raises:
        DataError: the manifest names none, or it is gone.
    """
    named = facts[part]["folder"]
    if not named or not Path(named).is_dir():
        raise DataError(
            f"run {facts['run_id']} read its {part} from {named or 'a folder that it does not name'}, which is not "
            "here; bring it back, or reproduce the run where it is"
        )
    return Path(named)


def outcomes(before: Json, after: Json, *, tolerance: float) -> list[tuple[str, str, str, str]]:
    """What each run came to, row by row: what, before, after, and `same` or `DIFFERS`."""
    then, now = before["outcome"], after["outcome"] or {"metrics": {}, "weights_sha256": None}
    rows = [_digests("snapshot", before["data"]["snapshot_id"], after["data"]["snapshot_id"])]
    for name, value in then["metrics"].items():
        again = now["metrics"].get(name)
        is_near = None not in (value, again) and abs(value - again) <= tolerance
        rows.append((name, str(value), str(again), _sameness(is_near or value == again)))
    if tolerance == 0:
        rows.append(_digests("weights", then["weights_sha256"], now["weights_sha256"]))
    return rows


def causes(before: Json, after: Json) -> list[str]:
    """In which of the things that an outcome rests on the two runs differ, in words."""
    code, now = before["code"], after["code"]
    found = []
    if before["data"]["sha256"] != after["data"]["sha256"]:
        found.append(f"other data in {after['data']['folder']}: bring back sha256 {before['data']['sha256']}")
    if before["features"]["declarations_sha256"] != after["features"]["declarations_sha256"]:
        found.append(f"other feature definitions in {after['features']['folder']}")
    if before["configuration"] != after["configuration"]:
        found.append(f"the preset {before['preset']!r} means something else now")
    if code["sha256"] != now["sha256"] or code["commit"] != now["commit"]:
        found.append(f"other code: check out commit {code['commit']}")
    if code["dirty"] or now["dirty"]:
        when = " and ".join([*(["then"] if code["dirty"] else []), *(["now"] if now["dirty"] else [])])
        found.append(f"code that no commit holds, {when}: the tree was dirty")
    then, here = before["environment"], after["environment"]
    found += [f"other {what}: {then[what]} then, {here[what]} now" for what in ENVIRONMENT if then[what] != here[what]]
    names = sorted(then["packages"].keys() | here["packages"].keys())
    odd = [name for name in names if then["packages"].get(name) != here["packages"].get(name)]
    shown = [f"{name} {then['packages'].get(name)} -> {here['packages'].get(name)}" for name in odd[:N_NAMED]]
    more = [f"and {len(odd) - N_NAMED} more"] if len(odd) > N_NAMED else []
    return found + ([f"other packages: {', '.join(shown + more)}"] if odd else [])


def told(found: list[str], rows: list[tuple[str, str, str, str]]) -> list[str]:
    """The closing lines."""
    different = [row[0] for row in rows if row[-1] != "same"]
    head = f"NOT the same: {', '.join(different)}." if different else "The same, to the last digit compared."
    unknown = different and not found
    return [
        head,
        *(f"  - {one}" for one in found),
        *(["  - for a reason that the manifest does not hold"] * bool(unknown)),
    ]


def _digests(name: str, before: str | None, after: str | None) -> tuple[str, str, str, str]:
    return name, str(before)[:12], str(after)[:12], _sameness(before == after)


def _sameness(is_same: bool) -> str:
    return "same" if is_same else "DIFFERS"


def _table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    lines = [("", "then", "now", ""), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
