"""A registry that is shared, and one that is old: more models and versions than one page of MLflow's holds."""

import pytest

from lrm.errors import RegistryError
from lrm.registry import backend
from lrm.registry.address import path_of
from lrm.registry.run import resolve, show
from tests.registry import children
from tests.registry.conftest import NAME


def test_a_model_among_a_hundred_others_is_found(registry, register):
    store = backend.connect(registry, NAME)
    for number in range(100):
        store.client.create_registered_model(f"a{number:02}")
    version = register("a")
    backend.set_tag(store, "team", "shop")
    assert backend.tag(store, "team") == "shop"
    assert len(backend.names(store)) == 101
    assert show(registry, NAME)["challenger"] == version


def test_a_champion_that_a_thousand_versions_followed_is_found(registry, register, promote):
    promote(register("a"))
    store = backend.connect(registry, NAME)
    for _ in range(1000):
        store.client.create_model_version(NAME, "file:///elsewhere")
    assert resolve(registry, NAME)["version"] == "1"
    assert [one.version for one in backend.versions(store)] == [str(number) for number in range(1, 1002)]
    assert register("a") == "1"


@pytest.mark.parametrize("number", ["01", "one", "2"])
def test_a_version_is_named_as_it_is_written(registry, register, number):
    register("a")
    with pytest.raises(RegistryError, match=rf"{NAME} has no version '{number}'; its versions are: 1$"):
        backend.version(backend.connect(registry, NAME), number)


def test_two_first_runs_at_the_same_moment_both_register_their_model(tmp_path):
    """Neither finds a registry: one makes it, and the other waits until it is whole."""
    start, told = children.PROCESSES.Barrier(2), children.PROCESSES.Queue()
    asked = [(tmp_path / "state", weights, start, told) for weights in "ab"]
    runs = [children.PROCESSES.Process(target=children.first_run, args=one) for one in asked]
    for run in runs:
        run.start()
    assert sorted(told.get() for _ in runs) == ["1", "2"]
    for run in runs:
        run.join()
    assert not list((tmp_path / "state").glob(".mlflow.db.*"))


@pytest.mark.parametrize("action", ["experiment", "tag"])
def test_what_another_run_creates_between_look_and_creation_is_taken_as_it_is(registry, action):
    state = path_of(registry).parent
    reached, go, code = children.PROCESSES.Event(), children.PROCESSES.Event(), children.PROCESSES.SimpleQueue()
    place = ("lrm.registry.backend", "_unless_there")
    slow = children.PROCESSES.Process(target=children.paused, args=(action, state, place, reached, go, code))
    slow.start()
    reached.wait()
    mine = children.ACTIONS[action](state)
    go.set()
    assert code.get() == mine
    slow.join()
    assert slow.exitcode == 0
