"""`python pipeline.py rollback`: the champion before this one is the champion again, and servers follow."""

from __future__ import annotations

import argparse
from typing import Any

from local.commands.model import add_options, registry_of
from local.commands.serve_version import add_runs_option, serve_version

HELP = "put the champion before this one back in service"
DESCRIPTION = """Put the champion before this one back in service: the alias moves in the registry, the ledger says so,
and the link that servers watch names the kept release of that version. Killed at any point, it is finished by running
it again. A further rollback goes one champion further back. No version is ever deleted."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("rollback", help=HELP, description=DESCRIPTION)
    parser.add_argument("--reason", default="", help="why, for those who will read the history")
    add_options(parser)
    add_runs_option(parser)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Roll back; 1 where servers cannot follow yet."""
    from lrm.registry.run import rollback, show
    from lrm.serving.release import latest_releases, root_of, served_version

    registry = registry_of(asked)
    held = show(registry, asked.name)
    root = root_of(asked.state, held["name"])
    served = served_version(root) if held["champion"] in latest_releases(root) else ""
    moved = rollback(registry, held["name"], reason=asked.reason, served=served)
    print(f"{held['name']}: version {moved['version']} is the champion again, was {moved['previous']}")
    return serve_version(registry, held["name"], moved["version"], state=asked.state, runs=asked.runs)
