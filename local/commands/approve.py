"""`python pipeline.py approve VERSION --reason TEXT`: a person puts a version in service that the gate did not."""

from __future__ import annotations

import argparse
from typing import Any

from local.commands.model_options import add_options, registry_of
from local.commands.serve_version import add_runs_option, serve_version

HELP = "put a version in service by a person's decision"
DESCRIPTION = """Put a registered version in service that the gate kept back, by a person's decision: the ledger keeps
who decided and why. A version with the verdict `reject` is unfit to serve and stays refused."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("approve", help=HELP, description=DESCRIPTION)
    parser.add_argument("version", help="the version to put in service; `history` names the one that waits")
    parser.add_argument("--reason", required=True, help="why, for those who will read the history")
    add_options(parser)
    add_runs_option(parser)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Approve a version; 1 where servers cannot follow yet."""
    from lrm.registry.run import approve, show

    registry = registry_of(asked)
    name = show(registry, asked.name)["name"]
    moved = approve(registry, name, asked.version, reason=asked.reason)
    was = f"was {moved['previous'] or 'none'}" if moved["is_moved"] else "and was before: nothing to do"
    print(f"{name}: version {moved['version']} is the champion, {was}")
    return serve_version(registry, name, moved["version"], state=asked.state, runs=asked.runs)
