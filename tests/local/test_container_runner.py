"""Steps in containers: what is asked of the container engine, and real runs where there are an engine and an image."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.faults import half_written, kill_session
from components.cluster import on_image
from components.step import IMAGE
from local import container_runner
from local.container_runner import LABEL, Containers, find, folders, options
from local.prepare import PROJECT
from local.runner import environment
from lrm.errors import LrmError
from lrm.manifest import read
from pipeline import workflow
from tests.test_pipeline import REUSED, Run, command, run, weights_sha256, write_world

WITHIN = Containers("sha256:" + "a1" * 32, "registry.example/train@sha256:b2", {"torch": "2.13.0"}, "1000:1000")
WAIT_SECONDS = 600.0


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "runs/20260101T000000-0001"


@pytest.fixture
def arguments(tmp_path):
    named = {"data": "data", "feature_repo": "data/feature_repo", "state": "state"}
    addresses = {"registry": f"sqlite:///{tmp_path}/state/mlflow.db", "ledger": ""}
    return {name: str(tmp_path / folder) for name, folder in named.items()} | addresses


def asked(run_dir, arguments):
    return options(WITHIN, run_dir, arguments, environment(run_dir))


def test_a_step_sees_the_folders_of_its_run_where_they_are_and_writes_in_runs_and_state_alone(run_dir, arguments):
    mounts = asked(run_dir, arguments)["mounts"]
    assert all(mount["Source"] == mount["Target"] and mount["Type"] == "bind" for mount in mounts)
    home = run_dir.parent.parent
    assert {mount["Target"] for mount in mounts if not mount["ReadOnly"]} == {str(home / "runs"), str(home / "state")}
    read_only = {mount["Target"] for mount in mounts if mount["ReadOnly"]}
    assert read_only == {str(home / "data"), str(PROJECT / "policy.toml")}


def test_folders_that_steps_write_in_are_made_by_the_user_and_not_by_the_container_engine(run_dir, arguments):
    asked(run_dir, arguments)
    made = [run_dir.parent, run_dir.parent.parent / "state", run_dir.parent / ".artifacts" / run_dir.name]
    assert [folder.stat().st_uid for folder in made] == [os.getuid()] * 3


def test_a_registry_and_a_ledger_of_their_own_are_seen_too_and_addresses_are_no_folders(run_dir, arguments, tmp_path):
    named = {"registry": f"sqlite:///{tmp_path}/shared/mlflow.db", "ledger": str(tmp_path / "ledger")}
    written, _ = folders(run_dir, arguments | named, {})
    assert written == [tmp_path / name for name in ("ledger", "runs", "shared", "state")]
    addresses = {"registry": "http://mlflow.example:5000", "ledger": "gs://bucket/ledger"}
    assert folders(run_dir, arguments | addresses, {})[0] == [tmp_path / "runs", tmp_path / "state"]


def test_the_users_policy_and_credentials_are_read_where_they_are(run_dir, arguments, tmp_path, monkeypatch):
    for name in (container_runner.POLICY, container_runner.CREDENTIALS):
        monkeypatch.setenv(name, str(tmp_path / name))
    given = asked(run_dir, arguments)
    seen = {mount["Target"] for mount in given["mounts"] if mount["ReadOnly"]}
    assert seen == {str(tmp_path / name) for name in ("data", container_runner.POLICY, container_runner.CREDENTIALS)}
    assert given["environment"][container_runner.POLICY] == str(tmp_path / container_runner.POLICY)


def test_a_step_runs_as_the_user_without_capabilities_on_a_root_that_it_cannot_write(run_dir, arguments):
    given = asked(run_dir, arguments)
    assert (given["user"], given["read_only"], given["cap_drop"]) == ("1000:1000", True, ["ALL"])
    assert given["tmpfs"] == {"/tmp": "mode=1777"}
    assert "no-new-privileges" in given["security_opt"]
    assert given["network_mode"] == "host"
    assert given["labels"] == {LABEL: str(run_dir)}


def test_where_the_engine_runs_as_the_user_its_root_is_the_user():
    assert container_runner._user({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}) == "0:0"
    assert container_runner._user({"SecurityOptions": ["name=seccomp,profile=default"], "Rootless": True}) == "0:0"
    assert container_runner._user({"SecurityOptions": None}) == f"{os.getuid()}:{os.getgid()}"


def test_a_step_is_told_of_its_run_and_its_image_and_of_nothing_else_that_the_user_has_set(
    run_dir, arguments, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("LRM_PROGRESS_TTY", "/dev/pts/7")
    told = asked(run_dir, arguments)["environment"]
    assert (told["LRM_RUN_DIR"], told["LRM_IMAGE"], told["OMP_NUM_THREADS"]) == (str(run_dir), WITHIN.name, "3")
    assert told["USER"]
    assert {"PATH", "HOME", "AWS_SECRET_ACCESS_KEY", "LRM_PROGRESS_TTY"} & told.keys() == set()


def test_no_training_goes_on_from_what_another_image_wrote(run_dir, arguments):
    told = asked(run_dir, arguments)["environment"]
    assert told["LRM_CHECKPOINTS"] == str(run_dir.parent / ".checkpoints/a1a1a1a1a1a1")


def test_every_step_is_placed_on_the_image_by_its_id_and_so_never_taken_from_another_ones_cache(tmp_path):
    from kfp.local.cache import LocalCache

    placed = on_image(workflow, WITHIN.image).pipeline_spec.deployment_spec["executors"].values()
    assert {executor["container"]["image"] for executor in placed} == {WITHIN.image}
    before = workflow.pipeline_spec.deployment_spec["executors"].values()
    assert {executor["container"]["image"] for executor in before} == {IMAGE}
    cache = LocalCache(str(tmp_path))
    keys = {cache.compute_key("train-lrm", image, ["sh"], {"seed": 0}) for image in (WITHIN.image, "sha256:c3", IMAGE)}
    assert len(keys) == 3


def test_the_function_that_starts_a_step_takes_what_the_engine_hands_it():
    from kfp.local import docker_task_handler

    theirs = inspect.signature(docker_task_handler.run_docker_container).parameters
    assert [*inspect.signature(container_runner._run).parameters][:4] == [*theirs][:4]


def test_without_a_container_engine_the_error_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(LrmError, match=r"no container engine answers at unix:.*nobody.sock .*; start Docker, or podm"):
        find("token-factory:dev")


def test_without_the_docker_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(LrmError, match=r"need the Python package `docker`, which is not installed; run `make setup`"):
        find("token-factory:dev")


@pytest.fixture(scope="module")
def within() -> Containers:
    """The image that `make image` builds, in the container engine that `DOCKER_HOST` names, or Docker."""
    try:
        return find(IMAGE)
    except LrmError as error:
        pytest.skip(f"no steps in containers: {error}")


@pytest.fixture(scope="module")
def home(within, tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def first(home) -> Run:
    return run(home, options=("--image", IMAGE))


def left(home: Path) -> list[str]:
    """The states of the containers that are there of runs in a home."""
    with container_runner._engine() as client:
        return [one.status for one in container_runner._of_runs(client) if home in Path(one.labels[LABEL]).parents]


@pytest.mark.slow
def test_an_image_that_is_not_there_is_an_error_that_names_those_that_are(within):
    with pytest.raises(LrmError, match=rf"has no image 'nobody:none'; it has .*{IMAGE}.*; build it with `make image`"):
        find("nobody:none")


@pytest.mark.slow
def test_an_image_of_other_code_is_refused(within, monkeypatch):
    monkeypatch.setattr(container_runner, "PROBE", """print('{"program": "0123456789abcdef", "versions": {}}')""")
    with pytest.raises(LrmError, match=r"holds other code \(sha256 0123456789ab\) than this checkout .*build it again"):
        find(IMAGE)
    monkeypatch.setattr(container_runner, "PROBE", "import nothing_of_the_kind")
    with pytest.raises(
        LrmError, match=r"the image cannot run this project's steps \(ModuleNotFoundError: .*nothing_of_the_kind"
    ):
        find(IMAGE)


@pytest.mark.slow
def test_the_whole_workflow_runs_step_by_step_in_containers(within, home, first):
    assert first.exit_code == 0, first.printed
    assert first.summary["verdict"] == "promote"
    assert set(first.states().values()) == {"succeeded"}
    assert read(first.folder)["environment"]["image"] == within.name
    assert json.loads((first.folder / "run.json").read_text())["versions"] == within.versions
    assert left(home) == []


@pytest.mark.slow
def test_a_second_run_in_containers_reuses_the_training(home, first):
    second = run(home, options=("--image", IMAGE))
    assert second.exit_code == 0, second.printed
    assert {step for step, state in second.states().items() if state == "reused"} == REUSED


@pytest.mark.slow
def test_a_run_in_containers_that_is_killed_and_interrupted_leaves_none_and_ends_in_the_same_model(first, tmp_path):
    write_world(tmp_path)
    wait_for(started(tmp_path), tmp_path, "retrieve_features", signal.SIGKILL)
    assert not is_running_on(tmp_path)
    assert wait_for(started(tmp_path), tmp_path, "train_lrm", signal.SIGINT) == 130
    assert left(tmp_path) == []
    record = json.loads((tmp_path / "runs/latest/steps/train_lrm/record.json").read_text())
    assert (record["state"], record["error"]["type"]) == ("failed", "KeyboardInterrupt")

    again = run(tmp_path, options=("--image", IMAGE))
    assert again.exit_code == 0, again.printed
    assert again.states()["retrieve_features"] == "reused"
    assert weights_sha256(again) == weights_sha256(first)
    assert half_written(tmp_path) == []


def started(home: Path) -> subprocess.Popen:
    asked = command(home, options=("--image", IMAGE))
    return subprocess.Popen(asked, cwd=PROJECT, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for(process: subprocess.Popen, home: Path, step: str, number: int) -> int:
    """Send a signal once a step runs: to the command line, or if it is a kill to all that it started."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not any('"running"' in path.read_text() for path in home.glob(f"runs/2*/steps/{step}/record.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number == signal.SIGKILL:
        kill_session(process.pid)
    else:
        os.kill(process.pid, number)
    return process.wait(timeout=60)


def is_running_on(home: Path) -> bool:
    """Whether a container of a killed run still runs once it had the time to end."""
    deadline = time.monotonic() + 30
    while (found := "running" in left(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
