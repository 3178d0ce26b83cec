"""Which model a command is about: the options that `history`, `rollback` and `approve` share."""

from __future__ import annotations

import argparse
from pathlib import Path

from lrm.registry.address import in_state, path_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--name`, `--state` and `--registry`."""
    parser.add_argument("--name", default="", help="the registered model; needed only where there are several")
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("state"),
        metavar="DIR",
        help="model registry and releases (default: %(default)s)",
    )
    parser.add_argument(
        "--registry",
        default="",
        metavar="URI",
        help="the model registry: sqlite:///PATH, or the http:// address of an MLflow server (default: in --state)",
    )


def registry_of(asked: argparse.Namespace) -> str:
    """The address of the model registry."""
    return asked.registry or in_state(asked.state)


def check_registry(address: str) -> None:
    """See that an address can be one of a model registry, before anything runs.

    Raises:
        RegistryError: it cannot.
    """
    path_of(address)
