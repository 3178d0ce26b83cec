"""How a model registry is named, known without its client: importing that takes seconds."""

from __future__ import annotations

import re
from pathlib import Path

from lrm.errors import RegistryError

SCHEME, SERVER, BUCKET = "sqlite:///", ("http://", "https://"), "gs://"


def in_state(state: Path) -> str:
    """The address of the registry that a state folder holds."""
    return f"{SCHEME}{state.resolve() / 'mlflow.db'}"


def hidden(address: str) -> str:
    """An address as it may be printed: without what stands before the host."""
    return re.sub(r"(?<=://)\S*@", "***@", address)


def check_ledger(ledger: str) -> None:
    """See that a promotion ledger can be at an address.

    Raises:
        RegistryError: it is neither a folder nor `gs://BUCKET/PATH`.
    """
    bucket = ledger.removeprefix(BUCKET).partition("/")[0] if ledger.startswith(BUCKET) else ""
    if "://" in ledger and not bucket:
        raise RegistryError(
            f"ledger {hidden(ledger)!r} is neither a folder nor {BUCKET}BUCKET/PATH: other stores have no writes that "
            "fail where another was first"
        )


def path_of(registry: str) -> Path | None:
    """The SQLite file of a registry; None for an MLflow server.

    Raises:
        RegistryError: the registry is named neither as `sqlite:///PATH` nor as `http(s)://HOST`, or with a password.
    """
    if registry.startswith(SERVER):
        if hidden(registry) != registry:
            raise RegistryError(
                f"the registry {hidden(registry)} is named with a user or a password, which would stand in reports and "
                "logs: leave them out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
                "MLFLOW_TRACKING_TOKEN) in the environment"
            )
        return None
    path = registry.removeprefix(SCHEME)
    if path == registry or not path:
        raise RegistryError(
            f"registry {hidden(registry)!r} is neither a {SCHEME}PATH nor the http:// address of an MLflow server; "
            f"MLflow no longer keeps a registry in plain files (file:): name {SCHEME}state/mlflow.db"
        )
    return Path(path).absolute()
