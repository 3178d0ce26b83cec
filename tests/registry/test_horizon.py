"""Versions that left service long ago give up their files, and nobody is led to what is gone."""

from datetime import UTC, datetime, timedelta

import pytest

from local import garbage_collection
from local.commands.prune import needed_by
from lrm.errors import RegistryError
from lrm.registry.run import rollback, show


def test_what_a_horizon_lets_go_cannot_be_rolled_back_to_and_its_row_stays(registry, register, promote, tmp_path):
    for n, weights in enumerate("abcd", start=1):
        promote(register(weights), run_id=f"run-{n}")
    runs, state = tmp_path / "runs", tmp_path / "state"
    runs.mkdir()

    def may_go(horizon=None):
        return garbage_collection.unneeded(runs, state, needed_by(registry, state, horizon))

    now = datetime.now(UTC)
    assert may_go() == []
    assert may_go(garbage_collection.Horizon(now - timedelta(days=1), 2)) == []
    listed = may_go(garbage_collection.Horizon(now + timedelta(days=1), 2))
    assert [item.why for item in listed] == ["files of a version that nobody needs"] * 2
    garbage_collection.remove(listed)
    name = show(registry)["name"]
    assert rollback(registry, name)["version"] == "3"
    with pytest.raises(RegistryError, match=r"version 2 is gone: .* `prune --older-than` takes the files"):
        rollback(registry, name, leave="3")
    held = show(registry)
    assert (held["champion"], held["interrupted"]) == ("3", None)
    assert [one["version"] for one in held["versions"]] == ["1", "2", "3", "4"]
