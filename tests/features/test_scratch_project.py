"""A scratch project is apart from all others in the store, and leaves nothing there."""

import time

import pytest

from lrm.errors import StoreError
from lrm.features import store
from lrm.features.open_store import SCRATCH, SCRATCH_SECONDS, closing_store
from lrm.features.scratch_project import scratch_project
from tests.features.test_online_values import UNTIL
from tests.online_stores import place

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=["redis", "postgres"])
def network(request):
    with place(request.param) as found:
        yield found


def materialise(scratch, data):
    told = {"state": scratch.online, "written": scratch.written}
    store.materialise_online(scratch.repo, data, UNTIL, **told)


def value_of(repo, data, state):
    online = store.open_online(repo, data, state=state)
    with closing_store(online.store):
        return store.read_online(online, [{"item_id": 100}], UNTIL)["title"].to_list()


def test_a_scratch_project_leaves_nothing_and_touches_nothing(network, data, tmp_path):
    repo = data / "feature_repo"
    project = network.give(repo)
    store.materialise_online(repo, data, UNTIL, state=tmp_path / "own")
    before = sorted(network.names(project))
    with scratch_project(repo, data, tmp_path / "scratch") as scratch:
        materialise(scratch, data)
        name = (scratch.repo / SCRATCH).read_text()
        assert network.names(name)
        assert value_of(scratch.repo, data, scratch.online) == ["item 0"]
    assert network.names(name) == []
    assert sorted(network.names(project)) == before
    assert value_of(repo, data, tmp_path / "own") == ["item 0"]


def test_a_scratch_project_that_fails_leaves_nothing_either(network, data, tmp_path):
    network.give(data / "feature_repo")
    with pytest.raises(StoreError, match="gone"):
        end_early(data, tmp_path / "scratch")
    assert network.names((tmp_path / "scratch/feature_repo" / SCRATCH).read_text()) == []


def end_early(data, folder):
    with scratch_project(data / "feature_repo", data, folder) as scratch:
        materialise(scratch, data)
        raise StoreError("gone")


def test_two_scratch_projects_at_once_leave_each_other_alone(network, data, tmp_path):
    network.give(data / "feature_repo")
    with scratch_project(data / "feature_repo", data, tmp_path / "one") as one:
        materialise(one, data)
        with scratch_project(data / "feature_repo", data, tmp_path / "other") as other:
            materialise(other, data)
        assert value_of(one.repo, data, one.online) == ["item 0"]


def test_what_a_killed_scratch_project_left_goes_by_itself_or_with_the_next(network, data, tmp_path):
    network.give(data / "feature_repo")
    killed = scratch_project(data / "feature_repo", data, tmp_path / "killed")
    scratch = killed.__enter__()
    materialise(scratch, data)  # and here its process ends
    name = (scratch.repo / SCRATCH).read_text()
    if network.kind == "redis":
        from redis import Redis

        with Redis.from_url(network.address) as client:
            keys = client.keys(f"*{name}")
            assert keys
            assert all(0 < client.ttl(key) <= SCRATCH_SECONDS for key in keys)
    else:
        old = name.replace(name.split("_")[2], f"{int(time.time()) - SCRATCH_SECONDS - 1:08x}")
        for table in network.names(name):
            network.sql(f'ALTER TABLE "{table}" RENAME TO "{table.replace(name, old)}"')
        assert network.names(old)
        with scratch_project(data / "feature_repo", data, tmp_path / "next"):
            pass
        assert network.names(old) == []
