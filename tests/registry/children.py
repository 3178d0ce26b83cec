"""Real processes that move a champion: some are killed at one of their writes, some race."""

import argparse
import importlib
import itertools
import multiprocessing
import os
import signal
from pathlib import Path

from lrm.errors import RegistryError

PROCESSES = multiprocessing.get_context("forkserver")
"""Children of a process that has imported the registry's client and done nothing else: quick to start, and clean."""
PROCESSES.set_forkserver_preload(["tests.registry.preloaded"])
EMULATOR = "STORAGE_EMULATOR_HOST"
BEFORE, TORN, AFTER = "before", "torn", "after"


def killed(action: str, state: Path, n: int, moment: str) -> int | None:
    """The exit code of a process that acts, and is killed before, in or after its n-th write."""
    child = PROCESSES.Process(target=_act, args=(action, state, (n, moment), os.environ.get(EMULATOR)))
    child.start()
    child.join()
    return child.exitcode


def act(action: str, state: Path) -> None:
    """Act to the end."""
    ACTIONS[action](state)


def _act(action: str, state: Path, kill: tuple[int, str], emulator: str | None) -> None:
    os.environ.update({EMULATOR: emulator} if emulator else {})
    from lrm.registry import append_log, backend
    from lrm.serving import release

    count = itertools.count()
    for module, name in ((append_log, "extend"), (backend, "move_alias"), (release, "_point")):
        setattr(module, name, _deadly(getattr(module, name), count, kill))
    ACTIONS[action](state)


def _deadly(write, count, kill):
    """The same function, which kills its process at one of the calls."""

    def call(*args, **kwargs):
        is_due = next(count) == kill[0]
        if is_due and kill[1] == TORN:
            with Path(args[0]).open("ab") as file:
                file.write(args[2][:20])
        if is_due and kill[1] in (BEFORE, TORN):
            os.kill(os.getpid(), signal.SIGKILL)
        done = write(*args, **kwargs)
        if is_due:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return call


def registry_of(state: Path) -> str:
    return f"sqlite:///{state}/mlflow.db"


def backend_of(_state: Path):
    from lrm.registry import backend

    return backend


def store_of(state: Path):
    return backend_of(state).connect(registry_of(state), "tiny-world")


def first_run(state: Path, weights: str, start, told) -> None:
    """Register a model, at the same moment as others, where there is no registry yet; say what came of it."""
    from tests.registry.conftest import register_trained

    start.wait()
    try:
        told.put(register_trained(state.parent, registry_of(state), weights))
    except Exception as error:  # whatever it is, the test shall name it
        told.put(repr(error))


def promote(state: Path, version: str = "2") -> None:
    from lrm.registry.run import promote_model

    told = {"registry": registry_of(state), "name": "tiny-world", "version": version, "run_id": f"run-{version}"}
    promote_model(state / f"promoted-{version}", **told)


def paused(action: str, state: Path, place: tuple[str, str], reached, go, code) -> None:
    """Act, but stop before a function is called the first time: say so, and go on when told; tell the exit code."""
    module = importlib.import_module(place[0])
    call = getattr(module, place[1])

    def wait(*args, **kwargs):
        setattr(module, place[1], call)
        reached.set()
        go.wait()
        return call(*args, **kwargs)

    setattr(module, place[1], wait)
    code.put(ACTIONS[action](state))


def _command(state: Path, name: str, **more: str) -> int:
    from local.commands import approve, rollback

    asked = argparse.Namespace(name="", state=state, registry="", reason="returns rose", runs=state / "runs", **more)
    return {"rollback": rollback, "approve": approve}[name].execute(asked)


ACTIONS = {
    "promote": promote,
    "rollback": lambda state: _command(state, "rollback", leave=""),
    "approve": lambda state: _command(state, "approve", version="2"),
    "experiment": lambda state: backend_of(state)._experiment(store_of(state), state / "artifacts"),
    "tag": lambda state: backend_of(state).set_tag(store_of(state), "team", "shop"),
    "main": lambda argv: importlib.import_module("pipeline").main(argv),
    "approve 3": lambda state: _command(state, "approve", version="3"),
}


def race(state: Path, version: str, start, told, emulator: str) -> None:
    """Promote at the same moment as others, and say what came of it."""
    from lrm.registry import backend

    os.environ[EMULATOR] = emulator
    backend.connect(registry_of(state), "tiny-world")
    start.wait()
    try:
        promote(state, version)
        told.put((version, "won"))
    except RegistryError as error:
        told.put((version, str(error)))
