import json
import re
import shutil

import pytest

from lrm.errors import DataError
from lrm.evaluation.page import page
from lrm.evaluation.run import evaluate_model
from tests.worlds import SIGNALS


@pytest.fixture(scope="module")
def models(examples, tmp_path_factory):
    """Two models of different seeds, trained for seconds."""
    from lrm.training.run import pretrain_token_factory, train_lrm

    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        pretrain_token_factory(examples, folder / f"factory-{seed}", preset="tiny", seed=seed)
        train_lrm(examples, folder / f"factory-{seed}", folder / f"model-{seed}", preset="tiny", seed=seed)
    return folder / "model-0", folder / "model-1"


@pytest.fixture(scope="module")
def judged(examples, models, tmp_path_factory):
    """The door's metrics, and the folder it wrote: model 0 against champion model 1."""
    folder = tmp_path_factory.mktemp("evaluation")
    return evaluate_model(examples, models[0], models[1], folder, preset="tiny", seed=3), folder


def test_the_door_writes_what_the_contract_promises(judged):
    metrics, folder = judged
    result = json.loads((folder / "evaluation.json").read_text())
    promised = {"verdict", "reasons", "models", "comparisons", "slices", "calibration", "recommendations"}
    assert promised <= set(result)
    assert list(result["models"]) == ["challenger", "champion", "popular", "own_history", "ease_markov", "trees"]
    assert set(result["models"]["challenger"]["ranking"]["auc"]) == {"value", "low", "high", "n_users"}
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
    assert record["files"] == ["evaluation.json", "evaluation.html", "signal_ledger.json"]


def test_the_signal_ledger_weighs_every_signal_and_is_on_the_page(judged):
    ledger = json.loads((judged[1] / "signal_ledger.json").read_text())
    assert {row["signal"] for row in ledger["signals"]} == {signal.name for signal in SIGNALS}
    per_cost = [row["value_per_cost"] for row in ledger["signals"]]
    assert per_cost == sorted(per_cost, reverse=True)
    assert ledger["matters"] == [["ranking", "auc"], ["ranking", "log_loss"], ["retrieval", "ndcg@10"]]
    text = (judged[1] / "evaluation.html").read_text()
    assert "Signal ledger" in text
    assert all(signal.name in text for signal in SIGNALS)


def test_a_warning_of_the_ledger_is_shown_and_escaped_and_no_ledger_leaves_no_section(judged):
    result, ledger = (json.loads((judged[1] / f"{name}.json").read_text()) for name in ("evaluation", "signal_ledger"))
    assert "Signal &lt;b&gt; may leak" in page(result, ledger | {"warnings": ["Signal <b> may leak"]})
    assert "Signal ledger" not in page(result)


def test_the_page_stands_alone_and_shows_every_model_and_reason(judged):
    text = (judged[1] / "evaluation.html").read_text()
    assert not re.search(r"https?://|src=|@import|<link|<script", text)
    for shown in ("Challenger", "Champion", "Most popular", "EASE + Markov", "Boosted trees", "Calibration"):
        assert shown in text


def test_the_page_escapes_what_the_data_say(judged):
    result = json.loads((judged[1] / "evaluation.json").read_text())
    result["recommendations"][0]["recommended"][0]["title"] = "<script>"
    result["slices"][0]["slice"] = "a < b"
    text = page(result)
    assert "<script>" not in text
    assert "a &lt; b" in text


def test_the_page_of_a_broken_challenger_still_renders(judged):
    result = json.loads((judged[1] / "evaluation.json").read_text())
    result |= {"verdict": "reject", "comparisons": [], "slices": [], "calibration": [], "recommendations": []}
    result["models"]["challenger"] = {}
    assert "The challenger is not fit to serve." in page(result)


def test_the_same_weights_in_another_folder_are_not_promoted(examples, models, tmp_path):
    shutil.copytree(models[0], tmp_path / "copy")
    metrics = evaluate_model(examples, models[0], tmp_path / "copy", tmp_path / "evaluation", preset="tiny")
    assert metrics["verdict"] != "promote"
    result = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert result["about"]["challenger"]["weights_sha256"] == result["about"]["champion"]["weights_sha256"]
    assert all(row["difference"] == 0 for row in result["comparisons"] if row["against"] == "champion")


def test_a_model_is_not_compared_with_its_own_folder(examples, models, tmp_path):
    with pytest.raises(DataError, match="champion and challenger are both"):
        evaluate_model(examples, models[0], models[0] / ".." / models[0].name, tmp_path / "evaluation", preset="tiny")


def test_without_a_champion_the_bar_is_popularity(examples, models, tmp_path):
    evaluate_model(examples, models[0], None, tmp_path / "evaluation", preset="tiny")
    result = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert "champion" not in result["models"]
    assert "slice_comparisons" in result
    assert result["verdict"] in ("promote", "keep", "reject")


@pytest.mark.parametrize("broken", ["a weight of another shape", "a signal that the data no longer have"])
def test_a_champion_that_cannot_be_scored_any_more_is_a_reason_and_not_a_crash(broken, examples, models, tmp_path):
    champion = shutil.copytree(models[1], tmp_path / "champion")
    if broken == "a weight of another shape":
        config = json.loads((champion / "config.json").read_text())
        config["model"]["d_model"] = 32
        (champion / "config.json").write_text(json.dumps(config))
    else:
        signals = json.loads((champion / "signals.json").read_text())
        dense = next(signal for signal in signals if signal["name"] == "hour")
        dense["name"] = "gone"
        (champion / "signals.json").write_text(json.dumps(signals))
        vocabulary = (champion / "vocabulary.json").read_text().replace('"hour"', '"gone"')
        (champion / "vocabulary.json").write_text(vocabulary)
    evaluate_model(examples, models[0], champion, tmp_path / "evaluation", preset="tiny")
    result = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert any(reason.startswith("The champion cannot be scored any more:") for reason in result["reasons"])
