"""Whether a run survives: killed (SIGKILL) in each step and started again, and with the world around it broken.

    python -m benchmarks.faults [--data NAME|PATH] [--points train_lrm ...] [--home DIR]

Each row begins where an unbroken run would be just before that step, kills the command line with everything that it
started (as a machine that goes down does), starts the same command again, and compares its end with the unbroken run's.
The second table breaks the disk or the registry instead; a full or read-only disk needs the right to mount one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command import run
from benchmarks.common import PROJECT, keep_table, markdown
from local import run_layout
from lrm.errors import LrmError
from lrm.manifest import read
from lrm.record import read_records
from lrm.reporting.run_files import STEPS

Json = dict[str, Any]
CHECKPOINT = "train_lrm, after a checkpoint"
POINTS = (*STEPS[:5], CHECKPOINT, *STEPS[5:])
MANY_SECONDS = 900.0
SHARE = 0.3
"""Of the time that the step took in the unbroken run, after which it is killed."""


class Ended(NamedTuple):
    """How a run ended."""

    exit_code: int
    printed: str
    folder: Path


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="built-in data or a data folder (default: the example's bookshop)")
    parser.add_argument("--points", nargs="*", choices=POINTS, default=list(POINTS), metavar="STEP")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS), metavar="FAULT")
    parser.add_argument("--home", type=Path, default=None, help="scratch folder (default: a temporary one)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        world = World.make(asked.home or Path(scratch), asked.data)
        header = ("killed in", "after s", "reused", "verdict", "metrics", "weights", "in service", "left half-written")
        rows = _printed(header, (killed(world, point) for point in asked.points))
        broken = _printed(
            ("fault", "exit", "said", "mended, started again"), (faulty(world, fault) for fault in asked.faults)
        )
        keep_table("faults", {"killed": rows, "broken": broken})


def _printed(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Print a table row by row, as each takes a minute or more."""
    print(markdown(header, []), flush=True)
    done = []
    for row in rows:
        print(markdown(row, []).partition("\n")[0], flush=True)
        done.append(row)
    print()
    return done


class World(NamedTuple):
    """A home (data, runs, state) that can be set back to just before any step of an unbroken run."""

    home: Path
    data: str
    before: Path
    """A copy with an empty registry, and an engine cache that an unbroken run filled."""
    unbroken: Json
    """The unbroken run: its manifest, the seconds of its steps, and what it put in service."""

    @classmethod
    def make(cls, folder: Path, data: str) -> World:
        """Run once, unbroken."""
        from lrm.registry import backend

        home, before = folder / "home", folder / "before"
        home.mkdir(parents=True)
        if not data:
            data = str(folder / "bookshop")
            subprocess.run([sys.executable, PROJECT / "examples/own-data/make_data.py", data], check=True)
        backend.connect(f"sqlite:///{home / 'state/mlflow.db'}", "empty")
        shutil.copytree(home, before)
        done = finish(start(home, data))
        if done.exit_code:
            raise LrmError(f"the unbroken run failed, so there is nothing to compare with: {done.printed}")
        shutil.copytree(home / "runs", before / "runs", symlinks=True)
        records = read_records(latest(home))
        seconds = {step: record["seconds"] for step, record in records.items()}
        if absent := [step for step in STEPS if step not in seconds]:
            steps = ", ".join(absent)
            raise LrmError(f"the unbroken run never came to {steps}; name data on which it promotes with --data")
        facts = {"manifest": read(latest(home)), "seconds": seconds, "served": served(home)}
        return cls(home, data, before, facts)

    def reset(self, point: str) -> None:
        """Set the home back to just before a step."""
        shutil.rmtree(self.home)
        shutil.copytree(self.before, self.home, symlinks=True)
        later = {step.replace("_", "-") for step in STEPS[STEPS.index(step_of(point)) :]}
        for entry, folders in run_layout.entries(self.home / "runs").items():
            if any(folder.parent.name in later for folder in folders):
                entry.unlink()


def killed(world: World, point: str) -> tuple[Any, ...]:
    """One row: kill in a step, start again, compare."""
    world.reset(point)
    process = start(world.home, world.data)
    kill_in(process, world.home, point, after=SHARE * world.unbroken["seconds"][step_of(point)])
    waited = read_records(newest(world.home))
    again = finish(start(world.home, world.data))
    facts = read(latest(world.home))
    states = {step: record["state"] for step, record in read_records(latest(world.home)).items()}
    return (
        f"`{point}`" if point in STEPS else point,
        f"{SHARE * world.unbroken['seconds'][step_of(point)]:.1f}" if point != CHECKPOINT else "",
        sum(state == "reused" for state in states.values()),
        (facts["outcome"] or {}).get("verdict", f"exit {again.exit_code}"),
        _same(world, facts, "metrics"),
        _same(world, facts, "weights_sha256"),
        "same" if served(world.home) == world.unbroken["served"] else "OTHER",
        ", ".join(half_written(world.home)) or ("nothing" if step_of(point) in waited else "NEVER REACHED"),
    )


def faulty(world: World, fault: str) -> tuple[Any, ...]:
    """One row: break the disk or the registry before the model is judged, mend it, start again, compare."""
    world.reset("evaluate_model")
    return FAULTS[fault](world)


def _same(world: World, facts: Json, what: str) -> str:
    expected = world.unbroken["manifest"]["outcome"][what]
    return "same" if (facts["outcome"] or {}).get(what) == expected else "OTHER"


def start(home: Path, data: str) -> subprocess.Popen[str]:
    """Start the command line as the leader of a session, by which all that it starts can be found."""
    folders = ["--data", data, "--runs", str(home / "runs"), "--state", str(home / "state")]
    command = [sys.executable, "pipeline.py", "run", "--preset", "tiny", *folders]
    return subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    """Wait for a run to end."""
    printed, _ = process.communicate(timeout=MANY_SECONDS)
    found = [line.partition(" ")[2].partition(":")[0] for line in printed.splitlines() if line.startswith("Run ")]
    return Ended(process.returncode, printed, Path(found[0] if found else ""))


def kill_in(process: subprocess.Popen[str], home: Path, point: str, *, after: float) -> None:
    """Kill a run, and all that it started, some seconds after a step began, or after the first checkpoint."""
    before = set(run_layout.run_folders(home / "runs"))
    deadline = time.monotonic() + MANY_SECONDS

    def is_there() -> bool:
        if point == CHECKPOINT:
            return any((home / "runs").glob(f"{run_layout.CHECKPOINTS}/*/checkpoint.pt"))
        own = [folder for folder in run_layout.run_folders(home / "runs") if folder not in before]
        return any(read_records(folder).get(point, {}).get("state") == "running" for folder in own)

    while process.poll() is None and not is_there() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.0 if point == CHECKPOINT else after)
    kill_session(process.pid)
    process.wait()
    if process.stdout:
        process.stdout.close()


def kill_session(leader: int) -> None:
    """Send SIGKILL to every process of a session, until none is left."""
    while members := list(_session(leader)):
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        time.sleep(0.05)


def _session(leader: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                yield int(stat.parent.name)


def served(home: Path) -> list[str]:
    """sha256 of the weights of each model that is in service."""
    links = sorted(home.glob("state/serving/*/current/bundle/weights.safetensors"))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in links]


def half_written(home: Path) -> list[str]:
    """What no finished write leaves: partial files, workspaces, and folders of steps that no record calls finished."""
    partial = [path for path in home.rglob("*.partial") if not path.is_symlink()]
    workspaces = list(home.glob(f"runs/*/{run_layout.WORKSPACE}"))
    records = home.glob(f"runs/{run_layout.ARTIFACTS}/*/*/*/*/record.json")
    torn = [path.parent for path in records if json.loads(path.read_text())["state"] == "running"]
    return sorted(str(path.relative_to(home)) for path in (*partial, *workspaces, *torn))


def latest(home: Path) -> Path:
    """The run that ended last."""
    return (home / "runs/latest").resolve()


def newest(home: Path) -> Path:
    """The run that began last."""
    return run_layout.run_folders(home / "runs")[-1]


def step_of(point: str) -> str:
    """The step in which a point lies."""
    return point.partition(",")[0]


def _broken(world: World, name: str, spoil: Callable[[], object], mend: Callable[[], object]) -> tuple[Any, ...]:
    """One row: break something, run, mend it, run again."""
    spoil()
    failed = finish(start(world.home, world.data))
    mend()
    again = finish(start(world.home, world.data))
    is_same = served(world.home) == world.unbroken["served"]
    outcome = f"exit {again.exit_code}, {'same' if is_same else 'OTHER'} model in service"
    return name, failed.exit_code, _error_line(failed.printed), outcome


def _error_line(printed: str) -> str:
    """The one line that says what is wrong."""
    told = [line.strip() for line in printed.splitlines() if "FAILED" in line or line.startswith("error:")]
    return " ".join(told[0].split()) if told else "NOTHING"


def _damaged_registry(world: World) -> tuple[Any, ...]:
    store = world.home / "state/mlflow.db"
    whole = store.read_bytes()
    damaged = b"no database" + whole[11:]
    return _broken(world, "registry damaged", lambda: store.write_bytes(damaged), lambda: store.write_bytes(whole))


def _locked_registry(world: World) -> tuple[Any, ...]:
    with closing(sqlite3.connect(world.home / "state/mlflow.db", isolation_level=None)) as other:
        return _broken(world, "registry locked", lambda: other.execute("begin exclusive"), other.rollback)


def _full_disk(world: World) -> tuple[Any, ...]:
    with _small_disk(world.home) as remount:
        used = sum(path.stat().st_blocks * 512 for path in world.home.rglob("*"))
        return _broken(world, "disk full", lambda: remount(f"size={used + 300_000}"), lambda: remount("size=1g"))


def _read_only_disk(world: World) -> tuple[Any, ...]:
    with _small_disk(world.home / "state") as remount:
        return _broken(world, "state read-only", lambda: remount("ro"), lambda: remount("rw"))


@contextmanager
def _small_disk(folder: Path) -> Iterator[Callable[[str], object]]:
    """Move a folder to a disk of its own; gives what changes an option of that disk.

    Raises:
        LrmError: this user may not mount one.
    """
    aside = folder.with_name(f"{folder.name}.aside")
    shutil.copytree(folder, aside, symlinks=True)
    try:
        _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder))
        try:
            shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
            yield lambda option: _mount("-o", f"remount,{option}", str(folder))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        shutil.rmtree(aside)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        raise LrmError(f"a disk could not be mounted ({done.stderr.strip()}); run this as root, or leave the fault out")


FAULTS: dict[str, Callable[[World], tuple[Any, ...]]] = {
    "full": _full_disk,
    "read-only": _read_only_disk,
    "locked": _locked_registry,
    "damaged": _damaged_registry,
}


if __name__ == "__main__":
    run(main)
