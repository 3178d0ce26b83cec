"""How a model registry is named, known without its client: importing that takes seconds."""

from __future__ import annotations

from pathlib import Path

from lrm.errors import RegistryError

SCHEME, SERVER = "sqlite:///", ("http://", "https://")


def in_state(state: Path) -> str:
    """The address of the registry that a state folder holds."""
    return f"{SCHEME}{state.resolve() / 'mlflow.db'}"


def path_of(registry: str) -> Path | None:
    """The SQLite file of a registry; None for an MLflow server.

    Raises:
        RegistryError: the registry is named neither as `sqlite:///PATH` nor as `http(s)://HOST`.
    """
    if registry.startswith(SERVER):
        return None
    path = registry.removeprefix(SCHEME)
    if path == registry or not path:
        raise RegistryError(
            f"registry {registry!r} is neither a {SCHEME}PATH nor the http:// address of an MLflow server; MLflow no "
            f"longer keeps a registry in plain files (file:): name {SCHEME}state/mlflow.db"
        )
    return Path(path).absolute()
