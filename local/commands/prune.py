"""`python pipeline.py prune`: list, then remove what no champion, rollback target or pinned run needs."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local import kept, retention
from local.commands.model import registry_of
from lrm.errors import DataError, RegistryError

HELP = "list, then remove what no champion, rollback target or pinned run needs"
DESCRIPTION = (
    "List runs, artifacts, checkpoints, releases and files of versions that no champion, rollback target or pinned run "
    "needs; with --yes, remove them. Nothing that the ledger names is ever listed, nor the latest run and challenger."
)


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("prune", help=HELP, description=DESCRIPTION)
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    parser.add_argument("--pin", default="", metavar="RUN", help="keep a run for good, and remove nothing now")
    parser.add_argument("--unpin", default="", metavar="RUN", help="no longer keep it, and remove nothing now")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    parser.add_argument("--state", type=Path, default=Path("state"), metavar="DIR", help="model registry and releases")
    parser.add_argument("--registry", default="", metavar="URI", help="the model registry (default: in --state)")
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Pin, unpin, list or remove."""
    if asked.pin or asked.unpin:
        return _pin(kept.find_run(asked.pin or asked.unpin, asked.runs), is_kept=bool(asked.pin))
    if not asked.runs.is_dir() and not asked.state.is_dir():
        raise DataError(f"there is neither a folder {asked.runs} nor {asked.state}; name them with --runs and --state")
    with ExitStack() as held:
        if asked.yes:  # what is listed stays unneeded until it is gone: nobody moves a champion or registers meanwhile
            _hold_champions(registry_of(asked), held)
        needed = needed_by(registry_of(asked), asked.state)
        items = retention.unneeded(asked.runs, asked.state, needed)
        sizes = [retention.size(item.path) for item in items]
        for item, n_bytes in zip(items, sizes, strict=True):
            print(f"{n_bytes / 1e6:>9.1f} MB  {_short(item.path)}  ({item.why})")
        if asked.yes:
            retention.remove(items)
    total = f"{len(items)} things, {sum(sizes) / 1e6:.1f} MB"
    print(f"removed {total}" if asked.yes else f"can go: {total}{'; --yes removes them' if items else ''}")
    return 0


def needed_by(registry: str, state: Path) -> retention.Needed:
    """What a registry needs; nothing where none was ever made.

    Raises:
        RegistryError: the registry or a ledger cannot be read, or is not where the state folder needs it, so nobody
            knows what is needed.
    """
    from lrm.registry import backend
    from lrm.registry.address import path_of
    from lrm.registry.run import show

    path = path_of(registry)
    if path is not None and not path.is_file():
        if any((state / name).exists() for name in ("artifacts", "serving")):
            raise RegistryError(
                f"there is no registry at {path} to say which versions and releases in {state} are needed; name it "
                "with --registry"
            )
        return retention.Needed(frozenset(), {}, ())
    runs: set[str] = set()
    versions: dict[str, frozenset[str]] = {}
    files: list[Path] = []
    for name in backend.names(backend.connect(registry, "")):
        held = show(registry, name)
        versions[name] = frozenset([held["champion"], held["challenger"], *held["named"]])
        runs |= {move["run_id"] for move in held["moves"]}
        for one in backend.versions(backend.connect(registry, name)):
            if one.version in versions[name]:
                runs.add(one.tags.get("run_id", ""))
                files.append(backend.local_path(one.source))
    return retention.Needed(frozenset(runs - {""}), versions, tuple(files))


def _hold_champions(registry: str, held: ExitStack) -> None:
    """Hold the champion of every model of a registry that is there."""
    from lrm.registry import backend
    from lrm.registry.address import path_of
    from lrm.registry.run import champion_held

    path = path_of(registry)
    if path is None or path.is_file():
        for name in backend.names(backend.connect(registry, "")):
            held.enter_context(champion_held(registry, name))


def _pin(run_dir: Path, *, is_kept: bool) -> int:
    marker = run_dir / kept.PINNED
    if is_kept:
        marker.write_text(f"{datetime.now(UTC).isoformat()}\n")
    else:
        marker.unlink(missing_ok=True)
    print(f"{run_dir.name} is {'pinned' if is_kept else 'not pinned'}")
    return 0


def _short(path: Path) -> str:
    """Relative to where the command runs, where it lies below that."""
    here = Path.cwd()
    return str(path.relative_to(here)) if here in path.parents else str(path)
