"""Which model a command is about: the options that `history`, `rollback` and `approve` share."""

from __future__ import annotations

import argparse
import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from lrm.errors import RegistryError
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


def check_registry(address: str, *, from_here: bool = True) -> None:
    """See that a model registry can be at an address, before anything runs.

    Args:
        address: of the registry.
        from_here: whether a server must answer this machine; containers may reach what it does not.

    Raises:
        RegistryError: it cannot.
    """
    if path_of(address) is not None or not from_here:
        return
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    asked = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"  # without a password, which MLflow alone needs
    try:
        urllib.request.urlopen(asked, timeout=ANSWERS_WITHIN_S).close()
    except urllib.error.HTTPError:
        return  # a server is there, and MLflow has the key to it
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        if not isinstance(why, ssl.SSLError):  # MLflow has its own trust settings
            raise RegistryError(f"no registry answers at {asked}: {why}; see --registry") from error
