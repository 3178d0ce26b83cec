"""Which model a command is about: the options that `history`, `rollback` and `approve` share."""

from __future__ import annotations

import argparse
import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from lrm.errors import RegistryError
from lrm.registry import address
from lrm.registry.address import in_state, path_of

ANSWERS_WITHIN_S = 10.0
"""Seconds that a registry has to answer at all."""


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


def check_ledger(place: str) -> None:
    """See that a promotion ledger can be at a place, "" for the one that the registry remembers, before anything runs.

    Raises:
        RegistryError: it cannot.
    """
    address.check_ledger(place)


def check_registry(registry: str, *, from_here: bool = True) -> None:
    """See that a model registry can be at an address, before anything runs.

    Args:
        registry: its address.
        from_here: whether a server must answer this machine; containers may reach what it does not.

    Raises:
        RegistryError: it cannot.
    """
    if path_of(registry) is not None or not from_here:
        return
    try:
        urllib.request.urlopen(registry, timeout=ANSWERS_WITHIN_S).close()
    except urllib.error.HTTPError:
        return  # a server is there, and MLflow has the key to it
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        if not isinstance(why, ssl.SSLError):  # MLflow has its own trust settings
            raise RegistryError(f"no registry answers at {registry}: {why}; see --registry") from error
