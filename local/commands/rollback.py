"""`python pipeline.py rollback`: the champion before this one is the champion again, and servers follow."""

from __future__ import annotations

import argparse
from typing import Any

from local.commands.model_options import add_options, registry_of
from local.commands.serve_version import add_runs_option, serve_version

HELP = "put the champion before this one back in service"
DESCRIPTION = """Put the champion before this one back in service: the alias moves in the registry, the ledger says so,
and the link that servers watch names the kept release of that version. Killed or failed at any point, it is finished by
running it again: as long as servers have not followed a rollback, the same command finishes that one. Once they have, a
further rollback goes one champion further back; with --from, never further than that. No version is ever deleted, and
no run promotes the weights that were rolled back; only `approve` brings them back."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("rollback", help=HELP, description=DESCRIPTION)
    parser.add_argument("--reason", default="", help="why, for those who will read the history")
    parser.add_argument(
        "--from",
        dest="leave",
        default="",
        metavar="VERSION",
        help="the version to leave: asked for twice, it is left once (default: the champion)",
    )
    add_options(parser)
    add_runs_option(parser)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Roll back; 1 where servers cannot follow yet."""
    from lrm.registry.run import rollback, show
    from lrm.serving.release import root_of, served_version

    registry = registry_of(asked)
    held = show(registry, asked.name)
    served = served_version(root_of(asked.state, held["name"]))
    moved = rollback(registry, held["name"], reason=asked.reason, served=served, leave=asked.leave)
    print(f"{held['name']}: version {moved['version']} is the champion again, was {moved['previous']}")
    if not moved["is_new"]:
        print(
            f"the rollback from version {moved['previous']} is finished, and none was made further back; to leave "
            f"version {moved['version']} too: python pipeline.py rollback --from {moved['version']}"
        )
    return serve_version(registry, held["name"], moved["version"], state=asked.state, runs=asked.runs)
