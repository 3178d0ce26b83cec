"""What a staging check finds: the real server, online store and all, against offline scores."""

import json
import re
import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lrm.errors import ServingError
from lrm.features.run import retrieve_features
from lrm.features.store import materialise_online
from lrm.features.tables import read
from lrm.model.artifact import load
from lrm.serving.releases.builder import build_release, declared_for
from lrm.serving.staging.process import running
from lrm.serving.staging.replay import ask, choose_probes
from lrm.serving.staging.skew import TOLERANCE, Outcome, measure, require_none
from lrm.serving.staging.staging_check import check_in_staging
from tests.online_stores import place
from tests.serving.shop import AS_OF, FEATURE_REPO, write_shop


def staged(world, folder: Path, *, champion: Path | None = None, **changed) -> dict:
    asked = {"data": world.data, "feature_repo": world.feature_repo} | changed
    check_in_staging(world.examples, world.root / "model", champion, folder, **asked)
    return json.loads((folder / "staging.json").read_text())


@pytest.fixture(scope="module")
def beside_the_champion(world, tmp_path_factory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("staging")
    return staged(world, folder, champion=world.release.folder / "bundle"), folder


def test_an_honest_release_has_no_skew(beside_the_champion):
    found, _ = beside_the_champion
    assert (found["n_users"], found["n_requests"], found["n_skewed"], found["skew"]) == (20, 40, 0, [])
    assert found["max_score_difference"] <= 1e-5
    assert found["max_probability_difference"] <= 1e-5


def test_a_thousand_users_are_served_what_is_scored_offline(world, tmp_path):
    data, repo = write_shop(tmp_path, n_users=1000)
    retrieve_features(data, repo, tmp_path / "examples")
    asked = {"data": data, "feature_repo": repo, "n_users": 1000}
    (tmp_path / "staging").mkdir()
    found = check_in_staging(tmp_path / "examples", world.root / "model", None, tmp_path / "staging", **asked)
    assert (found["n_users"], found["n_requests"], found["n_skewed"]) == (1000, 2000, 0)
    assert found["max_score_difference"] <= 1e-4
    assert found["max_probability_difference"] <= 1e-4


def test_an_expired_value_is_null_online_and_counted(beside_the_champion, world):
    found, _ = beside_the_champion
    declared = declared_for(load(world.root / "model").signals, world.feature_repo, world.data)
    probes = choose_probes(read(world.examples), world.data, declared, as_of=AS_OF, n=20)
    offered = [candidate["item_id"] for probe in probes for candidate in probe.candidates]
    assert found["expired"] == {"popularity": offered.count(100)}
    assert offered.count(100) > 0
    context = sum(len(probe.context.keys() & {"hour", "device"}) for probe in probes)
    request_provided = sum("shelf" in candidate for probe in probes for candidate in probe.candidates)
    from_views = 2 * len(probes) + 6 * len(offered)  # of each user, and of each candidate: nothing else is null
    assert found["n_ever_known"] == context + request_provided + from_views


def test_challenger_and_champion_are_timed_and_weighed_alike(beside_the_champion):
    found, _ = beside_the_champion
    assert 0 < found["latency_p50_ms"] <= found["latency_p99_ms"]
    assert 0 < found["champion_latency_p50_ms"] <= found["champion_latency_p99_ms"]
    assert found["bundle_bytes"] == found["champion_bundle_bytes"] > 0  # the champion is the same model
    assert found["start_seconds"] > 0
    assert (found["fault"], found["champion_fault"]) == ("", "")


def test_a_staging_check_leaves_its_findings_and_logs_and_touches_nothing_in_service(beside_the_champion, world):
    _, folder = beside_the_champion
    kept = {"staging.json", "record.json", "challenger.log", "champion.log"}
    assert {path.name for path in folder.iterdir()} == kept
    releases = {path.name for path in world.releases.iterdir() if path.is_dir()}
    assert releases - {"events"} == {"current", world.release.folder.name}  # servers of other tests keep events there


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_staging_check_in_a_store_on_the_network_finds_no_skew_and_leaves_nothing(world, tmp_path, kind):
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    with place(kind) as found:
        project = found.give(repo)
        measured = staged(world, tmp_path / "out", feature_repo=repo)
        assert (measured["fault"], measured["n_users"], measured["skew"]) == ("", 20, [])
        assert found.names(project) == found.names("lrm_scratch_") == []


def test_a_champion_that_cannot_be_served_any_more_does_not_stop_the_staging_check(world, tmp_path):
    champion = shutil.copytree(world.release.folder / "bundle", tmp_path / "champion")
    (champion / "weights.safetensors").write_bytes(b"evil")
    found = staged(world, tmp_path / "out", champion=champion)
    assert "weights.safetensors was changed" in found["champion_fault"]
    assert (found["n_users"], found["champion_latency_p50_ms"]) == (20, None)


def test_a_model_that_cannot_be_served_is_a_finding_and_not_a_failure(world, tmp_path):
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    (repo / "definitions.py").write_text(FEATURE_REPO.replace('"shelf"', '"rack"'))
    found = staged(world, tmp_path / "out", feature_repo=repo)
    assert re.search(r"the model reads shelf, which .* no longer declares", found["fault"])
    assert (found["n_requests"], found["n_users"], found["latency_p50_ms"], found["champion_fault"]) == (0, 0, None, "")
    assert found["bundle_bytes"] > 0


def planted(world, folder: Path, **changes: pl.Expr) -> Outcome:
    """What is measured of a release whose online store was filled from changed tables."""
    data = shutil.copytree(world.data, folder / "data")
    for table, change in changes.items():
        pl.read_parquet(data / f"{table}.parquet").with_columns(change).write_parquet(data / f"{table}.parquet")
    materialise_online(world.feature_repo, data, AS_OF, state=folder / "online")
    bundle, told = world.release.folder / "bundle", {"state": folder, "name": "shop", "version": "1"}
    release = build_release(bundle, world.examples, world.data, world.feature_repo, online=folder / "online", **told)
    recommender, examples = load(bundle), read(world.examples)
    declared = declared_for(recommender.signals, world.feature_repo, world.data)
    probes = choose_probes(examples, world.data, declared, as_of=AS_OF, n=5)
    with running(release.folder, log=folder / "server.log") as address:
        replies = [ask(address, probe, AS_OF) for probe in probes]
    return measure(release, declared, probes, replies, recommender, examples)


A_DAY_LATE = pl.col("event_time", "created_time") + timedelta(days=1)


def test_a_signal_written_wrongly_to_the_online_store_is_named_and_stops_a_roll_out(world, tmp_path):
    found = planted(world, tmp_path, users=pl.col("age") + 300)
    assert found.n_skewed >= 5
    assert {skew.user_id for skew in found.skew} == {20, 16, 12, 8, 4}
    assert {tuple(skew.signals) for skew in found.skew} == {("age",)}
    assert found.score_difference > TOLERANCE
    with pytest.raises(ServingError, match=r"skew: a user, item 1\d\d: score .* online and .*differ: age; "):
        require_none(found)


def test_a_table_that_is_shifted_by_a_day_is_named(world, tmp_path):
    found = planted(world, tmp_path, item_activity=A_DAY_LATE)
    assert {tuple(skew.signals) for skew in found.skew} == {("popularity",)}
    assert "signal" in {skew.what for skew in found.skew}
    assert all(skew.item_id in range(100, 112) and skew.online != skew.offline for skew in found.skew)


def test_a_signal_that_is_a_little_off_is_named_where_no_score_feels_it(world, tmp_path):
    found = planted(world, tmp_path, item_activity=pl.col("popularity") * 1.001)
    assert {tuple(skew.signals) for skew in found.skew} == {("popularity",)}
    assert {skew.what for skew in found.skew} == {"signal"}
    assert all(skew.item_id in range(100, 112) and skew.online != skew.offline for skew in found.skew)
