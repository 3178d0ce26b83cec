import json
import re
import shutil
from dataclasses import replace

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from lrm.content_digest import WEIGHTS, model_sha256
from lrm.errors import DataError
from lrm.evaluation.run import evaluate_model
from lrm.features.tables import read_declared
from lrm.model.artifact import save
from lrm.model.recommender import Recommender
from lrm.presets import PRESETS, preset
from lrm.registry import bundle
from lrm.reporting.evaluation_page import render
from lrm.reporting.run import report_run
from lrm.schema import write_signals
from lrm.storage import sha256_of
from lrm.tokens.corpus import fit_vocabulary
from tests.evaluation.test_staging_results import UNSERVED, write_staging_results
from tests.worlds import SIGNALS

POLICY = """\
[decision]
min_users = 10
n_resamples = 500

[staging]
required = false

[leakage]
max_signal_auc = 0.99  # labels follow the planted `affinity` alone
"""


@pytest.fixture(scope="module")
def models(examples, tmp_path_factory):
    """Two models of different seeds, trained for seconds."""
    from lrm.training.run import pretrain_token_factory, train_lrm

    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        pretrain_token_factory(examples, folder / f"factory-{seed}", preset="tiny", seed=seed)
        train_lrm(examples, folder / f"factory-{seed}", folder / f"model-{seed}", seed=seed)
    return folder / "model-0", folder / "model-1"


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A feature repo whose policy fits sixty users."""
    folder = tmp_path_factory.mktemp("feature_repo")
    (folder / "policy.toml").write_text(POLICY)
    return folder


@pytest.fixture(scope="module")
def judge(examples, models, repo):
    """Judge a model, model 0 unless said otherwise, without a feature report; give what the door wrote."""
    quick = replace(preset("tiny"), evaluation=replace(preset("tiny").evaluation, importance_tokens=0, n_trees=2))

    def run(folder, champion=None, *, model=models[0], **known):
        with pytest.MonkeyPatch.context() as patched:
            patched.setitem(PRESETS, "quick", lambda: quick)
            asked = {"preset": "quick", "feature_repo": repo} | known
            metrics = evaluate_model(examples, model, champion, folder, **asked)
        result = json.loads((folder / "evaluation.json").read_text())
        assert metrics["verdict"] == result["verdict"]
        return result

    return run


@pytest.fixture(scope="module")
def judged(examples, models, repo, tmp_path_factory):
    """The door's metrics, and the folder it wrote: model 0 against champion model 1."""
    folder = tmp_path_factory.mktemp("evaluation")
    asked = {"preset": "tiny", "seed": 3, "feature_repo": repo}
    return evaluate_model(examples, models[0], models[1], folder, **asked), folder


def test_the_door_writes_what_the_contract_promises(judged):
    metrics, folder = judged
    result = json.loads((folder / "evaluation.json").read_text())
    promised = {"verdict", "reasons", "models", "comparisons", "slices", "calibration", "recommendations"}
    assert promised <= set(result)
    sorted_histories = ["history_by_ranker", "history_by_trees"]
    baselines = ["popular", "own_history", "ease_markov", "trees", *sorted_histories]
    assert list(result["models"]) == ["challenger", "champion", *baselines]
    assert result["absent"] == []
    assert set(result["models"]["challenger"]["ranking"]["auc"]) == {"value", "low", "high", "n_users", "n_requests"}
    assert {"metric", "task", "against", "difference", "low", "high", "p_worse"} <= set(result["comparisons"][0])
    assert set(result["slices"][0]) >= {"slice", "task", "metric", "model", "value", "low", "high", "n_users"}
    assert result["data"] | {"name": "tiny-world", "sha256": "0" * 64, "protocol": "temporal"} == result["data"]
    assert result["settings"]["seed"] == 3
    assert result["about"]["challenger"]["n_parameters"] > 0
    assert result["machine"]["cores"] >= 1
    assert metrics["verdict"] == result["verdict"]
    assert metrics["ranking_auc"] == result["models"]["challenger"]["ranking"]["auc"]["value"]


def test_the_record_keeps_the_page_and_the_numbers(judged):
    record = json.loads((judged[1] / "record.json").read_text())
    assert (record["step"], record["state"]) == ("evaluate_model", "succeeded")
    assert record["files"] == ["evaluation.json", "evaluation.html", "feature_report.json"]


def test_the_feature_report_weighs_every_signal_and_is_on_the_page(judged):
    report = json.loads((judged[1] / "feature_report.json").read_text())
    assert {row["signal"] for row in report["signals"]} == {signal.name for signal in SIGNALS}
    per_cost = [row["value_per_cost"] for row in report["signals"]]
    assert per_cost == sorted(per_cost, reverse=True)
    assert report["metrics"] == [["ranking", "auc"], ["ranking", "log_loss"], ["retrieval", "ndcg@10"]]
    text = (judged[1] / "evaluation.html").read_text()
    assert "Feature report" in text
    assert all(signal.name in text for signal in SIGNALS)


def test_a_warning_of_the_ledger_is_shown_and_escaped_and_no_ledger_leaves_no_section(judged):
    result, report = (json.loads((judged[1] / f"{name}.json").read_text()) for name in ("evaluation", "feature_report"))
    assert "Signal &lt;b&gt; may leak" in render(result, report | {"warnings": ["Signal <b> may leak"]})
    assert "Feature report" not in render(result)


def test_the_page_stands_alone_and_shows_every_model_and_reason(judged):
    text = (judged[1] / "evaluation.html").read_text()
    assert not re.search(r"https?://|src=|@import|<link|<script", text)
    for shown in ("Challenger", "Champion", "Most popular", "EASE + Markov", "Boosted trees", "Calibration"):
        assert shown in text
    assert "Own history, sorted by the ranking head" in text
    assert "Own history, sorted by the trees" in text


def test_the_page_says_of_whom_each_figure_is_and_why_a_row_is_absent(judged):
    result = json.loads((judged[1] / "evaluation.json").read_text())
    absent = {"model": "history_by_trees", "task": "retrieval", "why": "the data have <no> ranking task"}
    text = render(result | {"absent": [absent]})
    assert "Own history, sorted by the trees: not there, as the data have &lt;no&gt; ranking task." in text
    cell = result["models"]["challenger"]["ranking"]["ndcg@10"]
    assert (cell["n_users"], cell["n_requests"]) == (60, 178)
    interval = f"<small>{cell['low']:.4f} to {cell['high']:.4f}</small>"
    assert interval in text
    assert "<small>60 users, 178 requests</small>" in text


def test_the_page_escapes_what_the_data_say(judged):
    result = json.loads((judged[1] / "evaluation.json").read_text())
    result["recommendations"][0]["recommended"][0]["title"] = "<script>"
    result["slices"][0]["slice"] = "a < b"
    text = render(result)
    assert "<script>" not in text
    assert "a &lt; b" in text


def test_the_page_of_a_broken_challenger_still_renders(judged):
    result = json.loads((judged[1] / "evaluation.json").read_text())
    result |= {"verdict": "reject", "comparisons": [], "slices": [], "calibration": [], "recommendations": []}
    result["models"]["challenger"] = {}
    assert "The challenger is not fit to serve." in render(result)


def test_the_same_weights_in_another_folder_are_not_promoted(judge, models, tmp_path):
    shutil.copytree(models[0], tmp_path / "copy")
    result = judge(tmp_path / "evaluation", tmp_path / "copy")
    assert result["verdict"] != "promote"
    assert result["about"]["challenger"]["weights_sha256"] == result["about"]["champion"]["weights_sha256"]
    assert all(row["difference"] == 0 for row in result["comparisons"] if row["against"] == "champion")


def test_a_model_is_not_compared_with_its_own_folder(examples, models, tmp_path):
    with pytest.raises(DataError, match="champion and challenger are both"):
        evaluate_model(examples, models[0], models[0] / ".." / models[0].name, tmp_path / "evaluation", preset="tiny")


def test_models_that_were_judged_on_these_requests_before_make_the_deciding_interval_wider(judge, models, tmp_path):
    first = judge(tmp_path / "first", models[1])
    own, told = first["about"]["challenger"]["weights_sha256"], first["data"]
    window = {"data": told["name"], "judged_from": told["judged_from"], "judged_until": told["judged_until"]}
    known = [window | {"version": f"{i}", "weights_sha256": f"w{i}", "parent_version": "1"} for i in range(4)]
    (tmp_path / "looks.json").write_text(json.dumps([*known, known[0] | {"weights_sha256": own}]))
    (tmp_path / "champion.json").write_text(json.dumps({"rolled_back": {}}))
    fifth = judge(tmp_path / "fifth", models[1], found=tmp_path)
    assert first["looks"] == {"n_earlier": 0, "new": 1.0, "confidence": 0.95}
    assert fifth["looks"] == {"n_earlier": 4, "new": 0.0, "confidence": pytest.approx(1 - 0.05 / 20)}
    (narrow, wide) = (
        next(row for row in each["rules"] if row["rule"] == "Ranking AUC against the champion")
        for each in (first, fifth)
    )
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    assert first["comparisons"] == fifth["comparisons"]  # at the policy's confidence, as everywhere else
    assert "4 other models were judged" in (tmp_path / "fifth/evaluation.html").read_text()


def test_without_a_champion_the_bar_is_popularity(judge, tmp_path):
    result = judge(tmp_path / "evaluation")
    assert "champion" not in result["models"]
    assert "slice_comparisons" in result
    assert "There is no champion yet." in result["reasons"]
    assert {"Ranking AUC against the most popular items", "Ranking AUC"} <= {row["rule"] for row in result["rules"]}


def damaged(champion, how):
    if how == "half the weights":
        (champion / "weights.safetensors").write_bytes((champion / "weights.safetensors").read_bytes()[:1000])
    elif how == "no manifest":
        (champion / "manifest.json").unlink()
    else:
        for name in ("signals.json", "vocabulary.json"):
            (champion / name).write_text((champion / name).read_text().replace('"hour"', '"gone"'))
    return champion


@pytest.mark.parametrize("how", ["half the weights", "no manifest", "a signal that is gone"])
def test_a_champion_that_cannot_be_scored_is_inconclusive_and_says_why(how, judge, models, tmp_path):
    champion = damaged(shutil.copytree(models[1], tmp_path / "champion"), how)
    result = judge(tmp_path / "evaluation", champion)
    assert result["verdict"] == "inconclusive"
    assert any(reason.startswith("Inconclusive: The champion cannot be scored:") for reason in result["reasons"])


@pytest.mark.parametrize(
    ("name", "before", "said"),
    [
        ("affinity", {"kind": "sparse"}, "affinity as a sparse signal, which in these data is a dense signal"),
        ("colour", {"kind": "dense"}, "colour as a dense signal, which in these data is a sparse signal"),
        ("tags", {"ordered": True}, "tags as a sequence, which in these data is a bag"),
        ("vector", {"dim": 3}, "vector as an embedding of 3 numbers, which in these data is an embedding of 4 numbers"),
        ("affinity", {"makers": ("query",)}, "affinity for the query, for which these data do not have it"),
    ],
)
def test_a_champion_that_read_a_signal_in_another_form_is_not_compared(
    name, before, said, judge, models, tables, tmp_path
):
    signals = tuple(replace(one, **before) if one.name == name else one for one in SIGNALS)
    numbers = pl.col("colour").str.len_bytes().cast(pl.Float32)
    held = (
        tables._replace(events=tables.events.with_columns(numbers), candidates=tables.candidates.with_columns(numbers))
        if name == "colour"
        else tables
    )
    config = preset("tiny")
    champion = shutil.copytree(models[1], tmp_path / "champion")
    save(Recommender(config, signals, fit_vocabulary(held, signals, config.tokens)), champion)
    result = judge(tmp_path / "evaluation", champion)
    assert result["verdict"] == "inconclusive"
    assert f"Inconclusive: The champion cannot be scored: it reads {said}." in result["reasons"]
    assert "champion" not in {row["against"] for row in result["comparisons"]}


def test_a_champion_that_reads_a_retired_signal_is_compared_with_a_model_that_does_not(
    examples, models, repo, tmp_path
):
    from lrm.training.run import pretrain_token_factory, train_lrm

    now = shutil.copytree(examples, tmp_path / "examples")
    gone = {"affinity", "country"}
    write_signals([replace(one, retired=one.name in gone) for one in SIGNALS], now / "signals.json")
    pretrain_token_factory(now, tmp_path / "factory", preset="tiny")
    train_lrm(now, tmp_path / "factory", tmp_path / "model")
    assert {one.name for one in read_declared(tmp_path / "model")} == {one.name for one in SIGNALS} - gone
    asked = {"preset": "tiny", "feature_repo": repo}
    evaluate_model(now, tmp_path / "model", models[0], tmp_path / "evaluation", **asked)
    result = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    (lost,) = [one for one in result["rules"] if one["rule"] == "Ranking AUC against the champion"]
    assert lost["high"] < 0  # labels follow the planted `affinity` alone, and trees that lack it do no better
    assert result["models"]["trees"]["ranking"]["auc"]["value"] < result["models"]["champion"]["ranking"]["auc"]["low"]
    report = json.loads((tmp_path / "evaluation/feature_report.json").read_text())
    assert not gone & {row["signal"] for row in report["signals"]}
    assert any(row["slice"].startswith("country = ") for row in result["slices"])  # users differ in it all the same


def test_a_worse_copy_of_the_champion_loses(judge, models, tmp_path):
    worse = shutil.copytree(models[0], tmp_path / "worse")
    weights = load_file(worse / "weights.safetensors")
    torch.manual_seed(0)
    blurred = {name: w + w.std() * torch.randn_like(w) if w.numel() > 1 else w for name, w in weights.items()}
    save_file(blurred, worse / "weights.safetensors")
    lost = judge(tmp_path / "lost", models[0], model=worse)
    assert lost["verdict"] in ("keep", "reject"), lost["reasons"]
    row = next(row for row in lost["rules"] if row["rule"] == "Ranking AUC against the champion")
    assert row["high"] < 0


def test_models_of_other_data_are_inconclusive(judge, models, tmp_path):
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in models]
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    (folders[0] / "manifest.json").write_text(json.dumps(manifest | {"snapshot_id": "other"}))
    (folders[1] / "manifest.json").write_text(json.dumps(manifest | {"as_of": "2030-01-01T00:00:00+00:00"}))
    result = judge(tmp_path / "evaluation", folders[1], model=folders[0])
    assert result["verdict"] == "inconclusive"
    first, second = result["reasons"][:2]
    assert first.startswith("Inconclusive: the challenger was made from snapshot other")
    assert second.startswith("Inconclusive: the champion was made from later data")


def test_the_policy_of_the_data_is_applied_and_recorded(judged, judge, tmp_path):
    recorded = json.loads((judged[1] / "evaluation.json").read_text())["policy"]
    assert recorded["values"]["decision"]["min_users"] == 10
    assert [name for name, _ in recorded["files"]] == ["policy.toml", recorded["files"][1][0]]
    assert judged[0]["policy_sha256"] == recorded["sha256"]
    strict = tmp_path / "feature_repo"
    strict.mkdir()
    (strict / "policy.toml").write_text(POLICY.replace("min_users = 10", "min_users = 61"))
    result = judge(tmp_path / "evaluation", feature_repo=strict)
    assert result["verdict"] == "inconclusive"
    assert result["policy"]["sha256"] != recorded["sha256"]


def test_the_content_of_the_challenger_is_the_registrys_digest_of_the_same_files(judged, models, tmp_path):
    content = json.loads((judged[1] / "evaluation.json").read_text())["challenger_content"]
    assert content == bundle.content_sha256(bundle.digest(models[0]))
    touched = shutil.copytree(models[0], tmp_path / "touched")
    (touched / "record.json").write_text("{}")
    assert model_sha256(touched) == content
    (touched / "config.json").write_text((touched / "config.json").read_text() + "\n")
    assert model_sha256(touched) != content


def test_skew_in_the_staging_check_rejects_with_the_signal_named(judge, tmp_path):
    write_staging_results(tmp_path, n_skewed=2, skew=[{"signals": ["hour"]}, {"signals": ["hour", "age"]}])
    result = judge(tmp_path / "evaluation", staging=tmp_path)
    assert result["verdict"] == "reject"
    assert "hour, age differ" in result["reasons"][0]
    assert result["staging"]["n_expired"] == 3


def test_a_model_that_cannot_be_served_is_rejected_and_both_reports_say_so(judge, tmp_path):
    staging, evaluation = (tmp_path / "run/steps" / step for step in ("check_in_staging", "evaluate_model"))
    staging.mkdir(parents=True)
    write_staging_results(staging, **UNSERVED)
    result = judge(evaluation, staging=staging)
    said = "The model cannot be served: the server did not start"
    assert result["verdict"] == "reject"
    assert said in result["reasons"]
    assert (result["staging"]["fault"], result["staging"]["latency_p50_ms"]) == ("the server did not start", None)
    assert said in (evaluation / "evaluation.html").read_text()
    report_run(tmp_path / "run")
    assert "the server did not start" in (tmp_path / "run/report.html").read_text()
    assert json.loads((tmp_path / "run/summary.json").read_text())["verdict"] == "reject"


def test_a_model_with_weights_that_were_rolled_back_is_kept_back_and_the_page_says_by_whom(judge, models, tmp_path):
    weights = sha256_of(models[0] / WEIGHTS)
    found = {"version": "1", "bundle": "/b", "rolled_back": {weights: "ann@desk rolled version 3 back: returns rose"}}
    (tmp_path / "champion.json").write_text(json.dumps(found))
    (tmp_path / "looks.json").write_text("[]")
    result = judge(tmp_path, found=tmp_path)
    (rule,) = [rule for rule in result["rules"] if rule["rule"] == "Not rolled back"]
    assert (rule["outcome"], rule["verdict"]) == ("failed", "keep")
    assert any("ann@desk rolled version 3 back: returns rose. No run promotes" in one for one in result["reasons"])
    assert "returns rose" in (tmp_path / "evaluation.html").read_text()
    (tmp_path / "champion.json").write_text(json.dumps(found | {"rolled_back": {"0" * 64: "another"}}))
    (rule,) = [rule for rule in judge(tmp_path, found=tmp_path)["rules"] if rule["rule"] == "Not rolled back"]
    assert rule["outcome"] == "passed"
