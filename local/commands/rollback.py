"""`python pipeline.py rollback`: the champion before this one is the champion again, and servers follow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from local.commands.model import add_options, registry_of

HELP = "put the champion before this one back in service"
DESCRIPTION = """Put the champion before this one back in service: the alias moves in the registry, the ledger says so,
and the link that servers watch names the kept release of that version. Killed at any point, it is finished by running
it again. A further rollback goes one champion further back. No version is ever deleted."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("rollback", help=HELP, description=DESCRIPTION)
    parser.add_argument("--reason", default="", help="why, for those who will read the history")
    add_options(parser)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Roll back; 1 where servers cannot follow yet."""
    from lrm.registry.run import rollback, show
    from lrm.serving.release import latest_releases, root_of, serve_again, served_version

    registry = registry_of(asked)
    held = show(registry, asked.name)
    root = root_of(asked.state, held["name"])
    served = served_version(root) if held["champion"] in latest_releases(root) else ""
    moved = rollback(registry, held["name"], reason=asked.reason, served=served)
    print(f"{held['name']}: version {moved['version']} is the champion again, was {moved['previous']}")
    release = serve_again(root, moved["version"])
    if release is None:
        print(no_release(root, moved["version"]))
        return 1
    print(f"in service: {release}; servers that watch {root / 'current'} follow, others must be started again")
    return 0


def no_release(root: Path, version: str) -> str:
    """What to say where no release of a version is kept."""
    return (
        f"not yet in service: {root} keeps no release of version {version}, so servers go on as they are; `make run` "
        "makes one and puts it in service"
    )
