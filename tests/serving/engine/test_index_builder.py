"""A release with a large catalogue is searched by an index, and says how well."""

import json
import logging
import shutil
import sqlite3

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.serving_world import made_release
from lrm.errors import ServingError
from lrm.model.heads._index import plan_index
from lrm.serving.engine import index_builder
from lrm.serving.engine.histories import spread_users
from lrm.serving.engine.index_builder import with_index
from lrm.serving.engine.session import open_session
from lrm.serving.release import INDEX, read_release, write_release
from lrm.serving.release_contents import write_list
from lrm.serving.releases.probe import prove
from lrm.storage import sha256_of
from tests.serving.conftest import ask, serving

N_ITEMS, N_USERS = 2000, 40


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Large, by a bar that is lower than the real one."""
    place = tmp_path_factory.mktemp("large")
    return read_release(made_release(place, n_items=N_ITEMS, n_users=N_USERS, preset="tiny", exact_up_to=1000))


def copied(release, place):
    return release._replace(folder=shutil.copytree(release.folder, place))


def with_plan(release, changed):
    """Another plan in the file of a release, with its digest."""
    path = release.folder / INDEX
    save_file(changed(load_file(path)), path)
    facts = release.catalogue_index | {"sha256": sha256_of(path)}
    write_release(release._replace(catalogue_index=facts))
    return read_release(release.folder)


def test_a_release_knows_what_its_index_finds(release):
    facts = release.catalogue_index
    assert (facts["lists"], facts["n_requests"]) == (32, N_USERS // 2)
    assert 1 <= facts["effort"] <= facts["lists"] // 2
    assert index_builder.FLOOR <= facts["recall_at_20"] <= 1
    assert index_builder.FLOOR <= facts["recall_at_100"] <= 1
    assert 0 <= facts["score_error"] < 1e-3  # the catalogue is smaller than the sample
    prove(open_session(release))


def test_a_server_with_an_index_answers_as_one_without(release):
    with serving(release) as indexed, serving(release, effort=0) as exact:
        facts = release.catalogue_index
        told = {name: facts[name] for name in facts if name != "sha256"} | {"measured_effort": facts["effort"]}
        assert ask(indexed, "/v1/model")[1]["index"] == told
        assert ask(exact, "/v1/model")[1]["index"] is None
        shares = []
        for user in range(N_USERS):
            body = {"user_id": user, "k": 20, "exclude": [0, 1], "exclude_seen": True}
            scores = [
                {item["item_id"]: item["score"] for item in ask(address, "/v1/recommend", **body)[1]["items"]}
                for address in (indexed, exact)
            ]
            shared = scores[0].keys() & scores[1].keys()
            shares.append(len(shared) / 20)
            for item in shared:
                assert scores[0][item] == pytest.approx(scores[1][item], abs=1e-3)
        assert np.mean(shares) >= index_builder.FLOOR
        body = {"user_id": 3, "k": N_ITEMS // 2}
        assert len(ask(indexed, "/v1/recommend", **body)[1]["items"]) == N_ITEMS // 2


def test_the_effort_can_be_chosen(release):
    session = open_session(release, effort=2)
    assert session.search_effort == 2
    assert session.index_facts["measured_effort"] == release.catalogue_index["effort"]
    with pytest.raises(ServingError, match="the search effort must be at least 0, got -1; 0 scores every item"):
        open_session(release, effort=-1)


def test_a_damaged_index_is_refused(release, tmp_path):
    path = copied(release, tmp_path / "release").folder / INDEX
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ServingError, match=r"index\.safetensors was changed since it was built .*roll the version out"):
        read_release(path.parent)
    path.unlink()
    with pytest.raises(ServingError, match=r"index\.safetensors is missing"):
        read_release(path.parent)


def test_an_index_that_is_not_of_this_catalogue_is_refused(release, tmp_path):
    other = copied(release, tmp_path / "other")
    shorter = with_plan(other, lambda plan: plan | {"list_V": plan["list_V"][:-1].clone()})
    with pytest.raises(ServingError, match="is of another catalogue: it has 1,999 items, the release 2,000"):
        open_session(shorter)
    strange = with_plan(other, lambda plan: {"centre_CD": plan["centre_CD"]})
    with pytest.raises(ServingError, match="cannot be read"):
        open_session(strange)


def test_an_index_that_does_not_find_the_best_fails_the_probe(release, tmp_path):
    mixed = with_plan(copied(release, tmp_path / "mixed"), lambda plan: plan | {"list_V": plan["list_V"].flip(0)})
    with pytest.raises(ServingError, match=r"the index finds \d+% of the best items of 4 users with 1 lists searched"):
        prove(open_session(mixed, effort=1))


def test_one_of_many_equal_items_is_as_good_as_another(release):
    session = open_session(release)
    head, exact = session.recommender.head, session.items.catalogue.prepared
    vectors = exact.item_VW
    with torch.inference_mode():
        vectors.copy_(vectors[torch.arange(N_ITEMS) % 4])
    plan = plan_index(vectors, np.full(N_ITEMS, 1 / N_ITEMS))
    mirrored = plan._replace(centre_CD=-plan.centre_CD)
    users = spread_users(session.histories, N_USERS)
    found, missed = (
        index_builder.measure(session, head.open_index(exact, one._asdict(), effort=4), users)
        for one in (plan, mirrored)
    )
    assert (found["recall_at_20"], found["recall_at_100"]) == (1, 1)
    assert found["score_error"] < 1e-3
    assert missed["recall_at_20"] < index_builder.FLOOR


def test_an_index_that_finds_too_little_is_not_kept_and_the_log_says_so(release, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(index_builder, "FLOOR", 1.01)
    fresh = copied(release, tmp_path / "fresh")._replace(catalogue_index=None)
    (fresh.folder / INDEX).unlink()
    with caplog.at_level(logging.WARNING, "lrm.serving"):
        assert with_index(fresh).catalogue_index is None
    assert "no index: its recall is under 1.01" in caplog.text
    assert not (fresh.folder / INDEX).exists()


def test_an_index_that_nobody_can_measure_is_not_kept(release, tmp_path, caplog):
    fresh = copied(release, tmp_path / "fresh")._replace(catalogue_index=None)
    with sqlite3.connect(fresh.folder / "history.sqlite") as connection:
        connection.execute("DELETE FROM history WHERE user_id > 0")
    connection.close()
    with caplog.at_level(logging.WARNING, "lrm.serving"):
        assert with_index(fresh).catalogue_index is None
    assert "fewer than two users have a history" in caplog.text


def test_a_release_of_before_there_were_indexes_is_read(release, tmp_path):
    old = copied(release, tmp_path / "old")
    facts = json.loads((old.folder / "release.json").read_text())
    del facts["catalogue_index"]
    (old.folder / "release.json").write_text(json.dumps(facts))
    write_list(old.folder)
    assert read_release(old.folder).catalogue_index is None
