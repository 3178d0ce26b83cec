"""Each step in a container of its own, through the engine's Docker runner, which podman's socket serves as well.

A container sees the folders of the run under the paths that they have here, and nothing else of this machine but its
network, where the registry and the online store may be. It runs as the user who started the run, without capabilities,
on a root that it cannot write.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from local import run_layout
from local.prepare import PROJECT, program_version
from lrm.errors import LrmError
from lrm.manifest import IMAGE
from lrm.progress import TERMINAL
from lrm.record import RUN_DIR

LABEL = "token-factory.run"
"""Names the folder of the run that a container is a step of."""
POLICY, CREDENTIALS = "LRM_POLICY", "GOOGLE_APPLICATION_CREDENTIALS"
PASSED = ("LRM_", "MLFLOW_", "FEAST_", "GX_", "OMP_", "PYTHONWARNINGS", "STORAGE_EMULATOR_HOST", CREDENTIALS)
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
ENGINE_SECONDS = 600
"""How long the container engine may take for an answer: its first container of an image can take minutes."""
PATIENCE_SECONDS = 10.0
"""How long an interrupted step may take to write its record; less than the runner waits for the whole engine."""
POLL_SECONDS = 0.1
DOCKER = "unix:///var/run/docker.sock"
START = (
    "start Docker, or podman with `podman system service --time 0 unix:///tmp/podman.sock &`, and name its socket: "
    "export DOCKER_HOST=unix:///tmp/podman.sock"
)
BUILD = "build it again with `make image`"
PROBE = (
    "import json; from local.prepare import program_version, versions; "
    "print(json.dumps({'program': program_version(), 'versions': versions()}))"
)
GUARD = f"""{{ flock --shared --nonblock "${RUN_DIR}/{run_layout.LOCK}" true ||
  flock --shared "${RUN_DIR}/{run_layout.LOCK}" sh -c 'kill -s KILL -- -1'; }} &
"$@"
exit $?"""
"""Runs a step, and kills it once nobody outside holds the run's lock any more: a killed run leaves no step behind.

Where the lock can be had at once it is not shared with the outside (a virtual machine's file system), and says nothing.
"""
INTERRUPT = 'for at in /proc/[0-9]*; do case $(readlink "$at/exe") in *python*) kill -s INT "${at#/proc/}";; esac; done'
"""Ctrl-C for what runs in a container; its shells are spared, because the container ends with them."""


class Containers(NamedTuple):
    """What a run's steps are started from."""

    image: str
    """Its id, which no later build moves: it enters the key of what is reused."""
    name: str
    """As the run's manifest has it: by digest where the engine knows one, else its id."""
    versions: dict[str, str]
    """What `local.prepare.versions` finds in it."""
    user: str
    """`uid:gid` of the steps."""


def find(asked: str) -> Containers:
    """Find an image of this project, and see that it can run steps as this user and holds the code of this checkout.

    Raises:
        LrmError: no container engine answers, it has no such image, or the image is of other code.
    """
    with _engine() as client:
        from docker.errors import APIError, NotFound

        user = _user(client.info())
        try:
            image = client.images.get(asked)
            seen = _probe(client, image.id, user)
        except NotFound:
            known = sorted(tag for image in client.images.list() for tag in image.tags)
            raise LrmError(
                f"the container engine has no image {asked!r}; it has {', '.join(known) or 'none'}; "
                "build it with `make image`, or pull it"
            ) from None
        except APIError as error:
            raise LrmError(f"the container engine cannot start {asked!r}: {error.explanation or error}") from error
    if seen["program"] != program_version():
        raise LrmError(
            f"{asked!r} holds other code (sha256 {seen['program'][:12]}) than this checkout "
            f"({program_version()[:12]}); {BUILD}, or check out the commit that it was built from"
        )
    name = next(iter(image.attrs.get("RepoDigests") or []), image.id)
    return Containers(image.id, name, seen["versions"], user)


def _probe(client: Any, image: str, user: str) -> dict[str, Any]:
    """What an image says of the code and the packages in it.

    Raises:
        LrmError: it cannot say it.
    """
    container = client.containers.create(image, ["python", "-c", PROBE], **_confined(user))
    try:
        container.start()
        status = container.wait()["StatusCode"]
        said, complained = container.logs(stderr=False), container.logs(stdout=False)
    finally:
        container.remove(force=True)
    if status:
        last = complained.decode(errors="replace").strip().rpartition("\n")[-1]
        raise LrmError(f"the image cannot run this project's steps ({last or f'status {status}'}); {BUILD}")
    seen: dict[str, Any] = json.loads(said)
    return seen


def remove_leftovers(runs: Path) -> None:
    """Remove the containers of runs of which no process is alive."""
    with _engine() as client:
        for container in _of_runs(client):
            run_dir = Path(container.labels[LABEL])
            if run_dir.parent == runs and not run_layout.is_running(run_dir):
                container.remove(force=True)


def runner(containers: Containers, run_dir: Path, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """The engine's runner, which starts every step of a run as `options` says."""
    from kfp import local
    from kfp.local import docker_task_handler

    docker_task_handler.run_docker_container = _run
    return local.DockerRunner(**options(containers, run_dir, arguments, environment))


def options(
    containers: Containers, run_dir: Path, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """What the container engine is asked for, for each step; makes the folders that steps write in.

    Args:
        containers: the image and the user.
        run_dir: the run's folder.
        arguments: the workflow's.
        environment: of the steps, were they processes of this machine.
    """
    from docker.types import Mount

    passed = _passed(containers, environment)
    written, read = folders(run_dir, arguments, passed)
    for folder in (*written, run_layout.artifacts_of(run_dir), run_dir / run_layout.WORKSPACE):
        folder.mkdir(parents=True, exist_ok=True)  # here, for a container engine would make them its own
    return {
        **_confined(containers.user),
        "labels": {LABEL: str(run_dir)},
        "environment": passed,
        "mounts": [Mount(str(path), str(path), type="bind", read_only=path in read) for path in (*written, *read)],
    }


def folders(
    run_dir: Path, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[list[Path], list[Path]]:
    """The folders that steps write in, and the folders and files that they only read."""
    named = [arguments["ledger"], arguments["registry"].removeprefix("sqlite:///")]
    places = [Path(named[0]), Path(named[1]).parent]
    here = [place for name, place in zip(named, places, strict=True) if name and "://" not in name]
    written = _outermost([run_dir.parent, Path(arguments["state"]), *here])
    files = [Path(environment[name]) for name in (POLICY, CREDENTIALS) if environment.get(name)]
    return written, _outermost([Path(arguments["data"]), Path(arguments["feature_repo"]), *files])


def _outermost(paths: list[Path]) -> list[Path]:
    """Each of the paths that lies in none of the others, once."""
    return sorted(path for path in set(paths) if not any(other in path.parents for other in paths))


def _passed(containers: Containers, environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that has a meaning in a container."""
    passed = {
        name: value
        for name, value in environment.items()
        if (name.startswith(PASSED) or name.lower() in PROXIES) and name != TERMINAL
    }
    files = {POLICY: passed.get(POLICY) or PROJECT / "policy.toml", CREDENTIALS: passed.get(CREDENTIALS)}
    checkpoints = Path(passed["LRM_CHECKPOINTS"]) / containers.image.removeprefix("sha256:")[:12]
    return {
        **passed,
        **{name: str(Path(file).resolve()) for name, file in files.items() if file},
        IMAGE: containers.name,
        "LRM_CHECKPOINTS": str(checkpoints),  # no training goes on from what another image wrote
        "USER": _user_name(),  # the ledger names who acts, and the image does not know the user's name
    }


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # nobody has named this user
        return f"user {os.getuid()}"


def _confined(user: str) -> dict[str, Any]:
    """What no container of a run may do."""
    return {
        "user": user,
        "read_only": True,
        "cap_drop": ["ALL"],
        # SELinux would deny the folders of the run, or have all files in them relabelled
        "security_opt": ["no-new-privileges", "label=disable"],
        "network_mode": "host",
        "tmpfs": {"/tmp": "mode=1777"},
    }


def _user(facts: Mapping[str, Any]) -> str:
    """Who the caller is inside: root where the engine itself runs as the caller and has root stand for them."""
    options = facts.get("SecurityOptions") or []
    is_rootless = facts.get("Rootless") or "name=rootless" in options  # as podman says it, and as Docker does
    return "0:0" if is_rootless else f"{os.getuid()}:{os.getgid()}"


def _run(client: Any, image: str, command: list[str], volumes: dict[str, Any], **asked: Any) -> int:
    """Run one step to its end, with what it prints passed on; returns its exit status.

    Stands in for `kfp.local.docker_task_handler.run_docker_container`, which lets the container remove itself: its exit
    status is lost when that is quick, and taken for success; podman 4 answers 500; and an interrupt leaves it running.
    kfp offers no other way: its handler calls that function by name, and the type of the runner chooses the handler.
    """
    client.api.timeout = ENGINE_SECONDS
    try:
        container = client.containers.run(
            image, ["sh", "-c", GUARD, "sh", *command], detach=True, volumes=volumes, **asked
        )
        for text in container.logs(stream=True):
            print(text.decode(errors="replace"), end="", flush=True)
        status = int(container.wait()["StatusCode"])
        if status:
            print(f"the container ended with status {status}", flush=True)
        return status
    except KeyboardInterrupt:
        for one in _of_runs(client, asked["labels"][LABEL]):
            _interrupt(one)
        raise
    finally:
        for one in _of_runs(client, asked["labels"][LABEL]):
            one.remove(force=True)


def _interrupt(container: Any) -> None:
    """Interrupt what runs in a container, and give it time to write its record."""
    from docker.errors import APIError

    deadline = time.monotonic() + PATIENCE_SECONDS
    with suppress(APIError):  # it has ended by itself
        container.exec_run(["sh", "-c", INTERRUPT])
    while container.status == "running" and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        container.reload()


def _of_runs(client: Any, run_dir: str = "") -> Any:
    """The containers of one run, or of all."""
    label = f"{LABEL}={run_dir}" if run_dir else LABEL
    return client.containers.list(all=True, filters={"label": label}, ignore_removed=True)


@contextmanager
def _engine() -> Iterator[Any]:
    """A client of the container engine that `DOCKER_HOST` names, or of Docker's own socket."""
    try:
        import docker
    except ImportError:
        raise LrmError(
            "steps in containers need the Python package `docker`, which is not installed; run `make setup`, or "
            "`pip install docker`"
        ) from None
    address = os.environ.get("DOCKER_HOST") or DOCKER
    socket = Path(address.removeprefix("unix://"))
    if address.startswith("unix://") and not socket.exists():
        raise LrmError(f"no container engine answers at {address} (there is no such socket); {START}")
    try:
        client = docker.from_env(timeout=ENGINE_SECONDS)
    except docker.errors.DockerException as error:
        raise LrmError(f"no container engine answers at {address} ({error}); {START}") from None
    with closing(client):
        yield client
