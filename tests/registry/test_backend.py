"""A registry that is shared, and one that is old: more models and versions than one page of MLflow's holds."""

import pytest

from lrm.errors import RegistryError
from lrm.registry import backend
from lrm.registry.run import resolve, show
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
