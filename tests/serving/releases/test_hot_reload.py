"""A release that the link comes to name is put in service, sooner or later, unless something is wrong with it."""

import json
import sqlite3
from contextlib import closing

from tests.serving.conftest import ask, copied, serving
from tests.serving.test_live import point, until


def model(address):
    return ask(address, "/v1/model")[1]


def n_reloads(address, result):
    """How many reloads had this result."""
    import urllib.request

    with urllib.request.urlopen(f"{address}/metrics") as response:
        lines = response.read().decode().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f'lrm_reloads_total{{result="{result}"}} ')]
    return float(value)


def test_a_store_that_fails_while_a_release_is_loaded_costs_it_a_try_and_not_its_service(world, tmp_path):
    one = copied(world, tmp_path / "one")
    copied(world, tmp_path / "two", version="2")
    point(tmp_path, "one")
    with serving(one, follow=tmp_path / "current") as address:
        ask(address, "/v1/events", events=[{"user_id": 1, "item_id": 107}])
        with closing(sqlite3.connect(tmp_path / "events" / "online.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            point(tmp_path, "two")
            put_off = until(lambda: model(address)["refused"])
            other.execute("ROLLBACK")
        assert put_off["release"] == "two"
        assert "the online store did not answer while two was proved" in put_off["reason"]
        assert put_off["retry_in_s"] >= 2
        until(lambda: model(address)["version"] == "2")
        assert model(address)["refused"] is None
        assert n_reloads(address, "retried") >= 1
        assert n_reloads(address, "refused") == 0


def test_a_release_with_which_something_is_wrong_is_not_tried_again(world, tmp_path):
    one = copied(world, tmp_path / "one")
    bad = copied(world, tmp_path / "bad", version="2")
    (bad.folder / "bundle" / "vocabulary.json").write_text(json.dumps({}))
    point(tmp_path, "one")
    with serving(one, follow=tmp_path / "current") as address:
        point(tmp_path, "bad")
        refused = until(lambda: model(address)["refused"])
        assert "vocabulary.json was changed" in refused["reason"]
        assert refused["retry_in_s"] is None
        assert (
            n_reloads(address, "refused"),
            n_reloads(address, "retried"),
        ) == (1, 0)
