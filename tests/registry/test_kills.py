"""A champion's move, killed at every one of its writes and run again, ends as if nothing had happened."""

import json
import shutil
import signal
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

from lrm.content_digest import content_sha256
from lrm.registry import backend, bucket
from lrm.registry.ledger import ledger_at, load
from lrm.registry.run import choose_ledger, resolve, show
from lrm.serving.release_contents import write_list
from tests import services
from tests.registry import children
from tests.registry.children import AFTER, BEFORE, TORN, registry_of
from tests.registry.conftest import NAME, copy_store, promote_version, register_trained

N_WRITES = {"promote": 5, "rollback": 6}
"""The intent in the mirror and beside the registry, the alias, done in both places; the link, where a person acts."""
KILLS = [
    *[(action, n, BEFORE) for action, writes in N_WRITES.items() for n in range(writes)],
    *[(action, n, TORN) for action in N_WRITES for n in (0, 4)],
    ("promote", 4, AFTER),
]


class End(NamedTuple):
    """What a move leaves."""

    champion: str
    served: str
    lines: list[tuple[str, str, str, str, str]]
    are_copies_equal: bool


@pytest.fixture(scope="module")
def homes(migrated, tmp_path_factory):
    """For each action a state in which it can happen: version 1 in service before a promotion, version 2 before a
    rollback."""
    root = tmp_path_factory.mktemp("kills")
    registry = copy_store(migrated, root / "promote")
    promote_version(root, registry, register_trained(root, registry, "a"), run_id="run-1")
    register_trained(root, registry, "b")
    for version in "12":
        write_release(root / "promote/serving" / NAME / f"{version}-abc", version)
    link(root / "promote", "1")
    shutil.copytree(root / "promote", root / "rollback", symlinks=True)
    children.act("promote", root / "rollback")
    link(root / "rollback", "2")
    return root


@pytest.fixture(scope="module")
def undisturbed(homes, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    return {action: end_of(action, copied(homes / action, root / action)) for action in N_WRITES}


@pytest.mark.parametrize(("action", "n", "moment"), KILLS)
def test_a_move_killed_at_a_write_and_run_again_ends_like_an_undisturbed_one(
    homes, undisturbed, tmp_path, action, n, moment
):
    state = copied(homes / action, tmp_path / "state")
    assert children.killed(action, state, n, moment) == -signal.SIGKILL
    assert end_of(action, state) == undisturbed[action]


@pytest.mark.parametrize("action", N_WRITES)
def test_the_ledger_in_a_bucket_survives_the_same_kills(homes, undisturbed, tmp_path, monkeypatch, action):
    with services.gcs() as address:
        monkeypatch.setenv(bucket.EMULATOR, address)
        for n in range(N_WRITES[action]):
            state = copied(homes / action, tmp_path / f"state-{n}")
            keep_in_bucket(state)
            assert children.killed(action, state, n, BEFORE) == -signal.SIGKILL
            assert end_of(action, state) == undisturbed[action], f"killed before write {n}"


def write_release(folder, version):
    """What a link needs of a release."""
    (folder / "bundle").mkdir(parents=True)
    (folder / "release.json").write_text(json.dumps({"version": version}))
    (folder / "bundle/bundle.json").write_text(
        json.dumps({"format": 1, "content_sha256": content_sha256({}), "files": {}})
    )
    write_list(folder)


def link(state, version):
    current = state / "serving" / NAME / "current"
    current.unlink(missing_ok=True)
    current.symlink_to(f"{version}-abc")


def copied(home: Path, state: Path) -> Path:
    """The same registry elsewhere: the bundles stay where they are."""
    return Path(shutil.copytree(home, state, symlinks=True, ignore=shutil.ignore_patterns("models", "*.lock")))


def keep_in_bucket(state):
    """Keep the ledger in a bucket of its own from now on."""
    name = f"ledger-{uuid.uuid4().hex[:8]}"
    client = bucket.storage.Client("emulated", bucket.AnonymousCredentials())
    client.create_bucket(name)
    client.close()
    choose_ledger(backend.connect(registry_of(state), NAME), state, f"gs://{name}/promotions")


def end_of(action, state):
    """Run an action to its end, and see what it leaves."""
    children.act(action, state)
    store = backend.connect(registry_of(state), NAME)
    place = backend.tag(store, backend.LEDGER) or str(state / "artifacts/promotions")
    ledger = ledger_at(NAME, mirror=place, beside=state / "promotions")
    own, lines = ledger.beside.read_bytes(), load(ledger).lines
    current = state / "serving" / NAME / "current"
    return End(
        champion=backend.alias(store, backend.CHAMPION),
        served=str(current.readlink()),
        lines=[(kept, move.action, move.version, move.previous, move.id) for kept, move in lines],
        are_copies_equal=own == load(ledger).seen.content,
    )


def test_of_two_machines_that_promote_at_the_same_moment_exactly_one_wins_and_the_other_is_told(
    homes, tmp_path, monkeypatch
):
    """Each has a folder of its own, so no lock is shared: the bucket decides."""
    with services.gcs() as address:
        monkeypatch.setenv(bucket.EMULATOR, address)
        state = copied(homes / "promote", tmp_path / "one")
        keep_in_bucket(state)
        registry = registry_of(state)
        third = register_trained(tmp_path, registry, "c", champion=resolve(registry, NAME)["bundle"])
        (tmp_path / "two").mkdir()
        (tmp_path / "two/mlflow.db").symlink_to(state / "mlflow.db")
        start, told = children.PROCESSES.Barrier(2), children.PROCESSES.Queue()
        asked = [(state, "2"), (tmp_path / "two", third)]
        racers = [children.PROCESSES.Process(target=children.race, args=(*one, start, told, address)) for one in asked]
        for racer in racers:
            racer.start()
        outcomes = dict(told.get() for _ in racers)
        for racer in racers:
            racer.join()
        (winner,) = [version for version, outcome in outcomes.items() if outcome == "won"]
        (loser,) = [outcome for outcome in outcomes.values() if outcome != "won"]
        assert "another promoter came first" in loser
        held = show(registry, NAME)
        assert held["champion"] == winner
        assert [move["version"] for move in held["moves"]] == ["1", winner]
