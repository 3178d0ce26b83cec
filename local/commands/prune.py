"""`python pipeline.py prune`: list, then remove what no champion, rollback target or pinned run needs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from local import garbage_collection, run_layout
from local.commands.model_options import registry_of
from lrm.errors import DataError, RegistryError

HELP = "list, then remove what no champion, rollback target or pinned run needs"
DESCRIPTION = (
    "List runs, artifacts, checkpoints, releases and files of versions that no champion, rollback target or pinned run "
    "needs; with --yes, remove them. Nothing that the ledger names is ever listed, nor the latest run and challenger; "
    "but with --older-than the files of versions that left service long ago are, and the runs that made them."
)
KEEP_LAST = 5
MOST = 100_000


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("prune", help=HELP, description=DESCRIPTION)
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    parser.add_argument(
        "--older-than",
        type=_at_least(1),
        metavar="DAYS",
        help="also list what belongs to versions that left service more than DAYS days ago; their rows in the registry "
        "stay, and nobody can roll back to them any more (default: a version that was ever in service keeps its files)",
    )
    parser.add_argument(
        "--keep-last",
        type=_at_least(2),
        default=KEEP_LAST,
        metavar="N",
        help="with --older-than: the N versions that served last, and the N that rollbacks would go through, keep "
        "their files however old they are (default: %(default)s)",
    )
    parser.add_argument("--pin", default="", metavar="RUN", help="keep a run for good, and remove nothing now")
    parser.add_argument("--unpin", default="", metavar="RUN", help="no longer keep it, and remove nothing now")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    parser.add_argument("--state", type=Path, default=Path("state"), metavar="DIR", help="model registry and releases")
    parser.add_argument("--registry", default="", metavar="URI", help="the model registry (default: in --state)")
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Pin, unpin, list or remove."""
    if asked.pin or asked.unpin:
        return _pin(run_layout.find_run(asked.pin or asked.unpin, asked.runs), is_kept=bool(asked.pin))
    if not asked.runs.is_dir() and not asked.state.is_dir():
        raise DataError(f"there is neither a folder {asked.runs} nor {asked.state}; name them with --runs and --state")
    with ExitStack() as held:
        if asked.yes:  # what is listed stays unneeded until it is gone: nobody moves a champion or registers meanwhile
            _hold_champions(registry_of(asked), held)
        needed = needed_by(registry_of(asked), asked.state, _horizon(asked))
        items = garbage_collection.unneeded(asked.runs, asked.state, needed)
        sizes = [garbage_collection.size(item.path) for item in items]
        for item, n_bytes in zip(items, sizes, strict=True):
            print(f"{n_bytes / 1e6:>9.1f} MB  {_short(item.path)}  ({item.why})")
        if asked.yes:
            garbage_collection.remove(items)
    total = f"{len(items)} things, {sum(sizes) / 1e6:.1f} MB"
    print(f"removed {total}" if asked.yes else f"can go: {total}{'; --yes removes them' if items else ''}")
    return 0


def _at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least that."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= MOST:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {MOST:,}, got {text!r}")
        return int(text)

    return read


def _horizon(asked: argparse.Namespace) -> garbage_collection.Horizon | None:
    if asked.older_than is None:
        return None
    return garbage_collection.Horizon(datetime.now(UTC) - timedelta(days=asked.older_than), asked.keep_last)


def needed_by(
    registry: str, state: Path, horizon: garbage_collection.Horizon | None = None
) -> garbage_collection.Needed:
    """What a registry needs; nothing where none was ever made.

    Args:
        registry: its address.
        state: the folder that holds releases and the versions' files.
        horizon: what lets versions go that left service long ago; None: none goes that was ever in service.

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
        return garbage_collection.Needed(frozenset(), {}, ())
    runs: set[str] = set()
    versions: dict[str, frozenset[str]] = {}
    files: list[Path] = []
    for name in backend.names(backend.connect(registry, "")):
        held = show(registry, name)
        gone = garbage_collection.outlived(held, horizon) if horizon else frozenset()
        versions[name] = frozenset([held["champion"], held["challenger"], *held["named"]]) - gone
        runs |= {move["run_id"] for move in held["moves"] if move["version"] not in gone}
        for one in backend.versions(backend.connect(registry, name)):
            if one.version in versions[name]:
                runs.add(one.tags.get("run_id", ""))
                files.append(backend.local_path(one.source))
    return garbage_collection.Needed(frozenset(runs - {""}), versions, tuple(files))


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
    marker = run_dir / run_layout.PINNED
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
