"""`python -m lrm.registry`: look at the versions, and move the champion back."""

from __future__ import annotations

import argparse
import sys

from lrm.errors import LrmError
from lrm.registry.run import rollback, show

EPILOG = """examples:
  python -m lrm.registry show        the versions, their verdicts, and which one is in service
  python -m lrm.registry history     every promotion and rollback, oldest first
  python -m lrm.registry rollback --reason "returns rose"
                                     the champion before this one is the champion again

A rollback moves the alias alone: no version is deleted, and a server keeps the version that it was started with, so
start it again (`make serve`) to serve the champion of now. The releases of the last two versions are kept; for an older
one, `make run` makes a release again. A rollback can be repeated, one champion further back each time.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lrm.registry",
        description="Look at the model registry, and move the champion back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("show", "history", "rollback"), help="what to do; see the examples")
    parser.add_argument("--registry", default="sqlite:///state/mlflow.db", help="the store (default: %(default)s)")
    parser.add_argument("--name", default="", help="the registered model; needed only where there are several")
    parser.add_argument("--reason", default="", help="why, for the history (rollback)")
    given = parser.parse_args(argv)
    try:
        text = _answer(given.command, given.registry, given.name, given.reason)
    except LrmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


def _answer(command: str, registry: str, name: str, reason: str) -> str:
    held = show(registry, name)
    if command == "show":
        rows = [_version_row(one, held["champion"], held["challenger"]) for one in held["versions"]]
        return "\n".join([f"versions of {held['name']}:", *rows])
    if command == "history":
        rows = [
            f"{move['time'][:19]}  {move['action']:<8}  {move['previous'] or 'none'} -> {move['version']}  "
            f"{move['run_id']}  {move['reason']}".rstrip()
            for move in held["moves"]
        ]
        return "\n".join([f"moves of the champion of {held['name']} (UTC):", *rows])
    moved = rollback(registry, held["name"], reason=reason)
    return (
        f"{held['name']}: version {moved['version']} is the champion again (was {moved['previous']}); restart servers"
    )


def _version_row(one: dict[str, str], champion: str, challenger: str) -> str:
    aliases = [
        alias for alias, number in (("champion", champion), ("challenger", challenger)) if number == one["version"]
    ]
    return (
        f"  {one['version']:>4}  {one.get('verdict', '?'):<8}  {'+'.join(aliases) or '-':<20}  "
        f"data {one.get('data', '?')} {one.get('data_sha256', '')[:12]}  run {one.get('run_id', '?')}"
    )


if __name__ == "__main__":
    sys.exit(main())
