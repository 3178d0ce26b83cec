import hashlib
import re
from dataclasses import replace

import pytest

from lrm.errors import PolicyError
from lrm.evaluation import policy as policies
from lrm.evaluation.policy import DecisionPolicy, Policy, as_json, files, load


def written(folder, text):
    path = folder / "policy.toml"
    path.write_text(text)
    return [path]


def test_the_shipped_file_says_every_knob_with_its_default():
    assert load(files(None)) == Policy()
    text = policies.SHIPPED.read_text()
    for section, knobs in as_json(Policy(), [])["values"].items():
        assert f"[{section}]" in text
        assert [knob for knob in knobs if not re.search(rf"^{knob} = ", text, re.MULTILINE)] == []


def test_a_feature_repo_overrules_single_knobs(tmp_path):
    written(tmp_path, "[decision]\nmin_users = 9\n[margins]\nranking = { ece = 0.1 }\n")
    found = load(files(tmp_path))
    assert found.decision == DecisionPolicy(min_users=9)
    assert found.margins["ranking"] == {"auc": 0.005, "log_loss": 0.005, "ece": 0.1}
    assert found.margins["retrieval"] == Policy().margins["retrieval"]


def test_a_feature_repo_without_a_policy_has_the_shipped_one(tmp_path):
    assert files(tmp_path) == files(None) == [policies.SHIPPED]


def test_the_hash_is_of_what_is_asked_and_the_files_have_their_own(tmp_path):
    plain = as_json(load(written(tmp_path, "[slices]\nmargin = 0.02\n")), [tmp_path / "policy.toml"])
    commented = as_json(load(written(tmp_path, "# reviewed\n[slices]\nmargin = 2e-2\n")), [tmp_path / "policy.toml"])
    assert plain["sha256"] == commented["sha256"] != as_json(Policy(), [])["sha256"]
    assert plain["files"] != commented["files"]
    content = (tmp_path / "policy.toml").read_bytes()
    assert commented["files"] == [["policy.toml", hashlib.sha256(content).hexdigest()]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[decision", "is not TOML"),
        ("[decisions]\n", "there is no knob decisions; policy.toml of the project lists all"),
        ("[decision]\nmin_user = 3\n", "there is no knob decision.min_user;"),
        ("decision = 3\n", "decision must be a table, got 3"),
        ('[decision]\nmin_users = "3"\n', "decision.min_users must be a whole number, got '3'"),
        ("[decision]\nmin_users = true\n", "decision.min_users must be a whole number, got True"),
        ("[decision]\nallow_backfill = 1\n", "decision.allow_backfill must be true or false, got 1"),
        ("[decision]\nconfidence = 1.5\n", "decision.confidence must be from 0.5 to 0.9999, got 1.5"),
        ("[decision]\nconfidence = nan\n", "decision.confidence must be from 0.5 to 0.9999, got nan"),
        ("[decision]\nmin_gain = -0.1\n", "decision.min_gain must be at least 0, got -0.1"),
        ('[decision]\ntasks = ["ranking"]\n', "must name 'retrieval'; add it"),
        ('[decision]\nprimary = { ranking = "rmse" }\n', "decision.primary.ranking has 'rmse', which is none of auc"),
        ('[slices]\ncorrection = "sidak"\n', "slices.correction has 'sidak', which is none of holm, bonferroni, none"),
        ("[slices]\nrequired = [1]\n", "slices.required must be text, got 1"),
        ("[margins]\nranking = { auc = -1 }\n", "margins.ranking.auc must be at least 0, got -1"),
        ("[margins]\nclicks = { auc = 1 }\n", "margins has 'clicks', which is none of ranking, retrieval"),
        (
            "[first_model]\nfloors = { ranking = { auc = nan } }\n",
            "first_model.floors.ranking.auc must be at least -inf",
        ),
        ('[first_model]\nbaselines = ["champion"]\n', "first_model.baselines has 'champion', which is none of popular"),
        ("[guardrails]\nmax_bundle_mb = 0\n", "guardrails.max_bundle_mb must be at least 1e-06, got 0"),
        ("[leakage]\nmax_gain = { ranking = { auc = 0 } }\n", "leakage.max_gain.ranking.auc must be at least 1e-06"),
        ("[leakage]\nmax_signal_auc = 0.4\n", "leakage.max_signal_auc must be from 0.5 to 1, got 0.4"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_file_and_the_knob(text, message, tmp_path):
    with pytest.raises(PolicyError, match=f"policy.toml.*{re.escape(message)}"):
        load(written(tmp_path, text))


def test_without_the_projects_file_nothing_is_promoted(tmp_path, monkeypatch):
    monkeypatch.setenv(policies.PLACE, str(tmp_path / "policy.toml"))
    with pytest.raises(PolicyError, match="is missing: no promotion without a policy"):
        files(None)


def test_a_policy_is_a_value():
    assert replace(Policy(), decision=DecisionPolicy(min_users=60)) != Policy()
