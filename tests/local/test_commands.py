"""What `steps` and `reproduce` say; a run that is reproduced in full is in tests/test_pipeline.py."""

import copy
import json

import pytest

from local.commands import reproduce, steps
from lrm.errors import DataError
from lrm.presets import PRESETS
from lrm.reporting.run_files import STEPS
from pipeline import main, workflow

FACTS = {
    "run_id": "1",
    "data": {"folder": "/data", "sha256": "d1", "snapshot_id": "s1"},
    "features": {"folder": "/repo", "declarations_sha256": "f1"},
    "preset": "tiny",
    "configuration": {"name": "tiny"},
    "code": {"sha256": "c1", "commit": "abc", "dirty": False},
    "environment": {
        "python": "3.11.7",
        "image": None,
        "machine": "x86_64",
        "threads": "1",
        "packages": {"torch": "2.13", "polars": "2.1"},
    },
    "outcome": {"weights_sha256": "w1", "metrics": {"ranking.auc": 0.75, "ranking.ndcg@10": None}},
}


def changed(**parts):
    facts = copy.deepcopy(FACTS)
    for name, values in parts.items():
        facts[name] |= values
    return facts


def test_every_step_of_the_workflow_has_a_printed_policy(capsys):
    assert main(["steps"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[: len(STEPS)]] == list(STEPS)


def test_a_step_has_a_reason_to_run_always_exactly_where_the_compiled_workflow_does_not_cache_it():
    found = steps.compiled(workflow)
    assert {step.name for step in found} == set(STEPS)
    assert [step.name for step in found if step.is_reused == (step.name in steps.ALWAYS)] == []


def test_what_a_step_is_reused_by_holds_the_content_of_all_it_reads():
    by = {step.name: set(step.inputs) for step in steps.compiled(workflow) if step.is_reused}
    assert by["retrieve_features"] == {"as_of", "code_version", "data", "data_version", "feature_repo", "seed"}
    assert by["train_lrm"] == {"code_version", "examples", "factory", "seed"}
    assert all("code_version" in inputs for inputs in by.values())


def test_the_same_outcome_is_the_same_and_nothing_is_blamed():
    rows = reproduce.outcomes(FACTS, FACTS, tolerance=0.0)
    assert {row[-1] for row in rows} == {"same"}
    assert [row[0] for row in rows] == ["snapshot", "ranking.auc", "ranking.ndcg@10", "weights"]
    assert reproduce.told(reproduce.causes(FACTS, FACTS), rows) == ["The same, to the last digit compared."]


def test_another_outcome_is_told_apart_within_a_tolerance_if_one_is_given():
    other = changed(outcome={"weights_sha256": "w2", "metrics": {"ranking.auc": 0.7501, "ranking.ndcg@10": None}})
    rows = reproduce.outcomes(FACTS, other, tolerance=0.0)
    assert {row[0] for row in rows if row[-1] == "DIFFERS"} == {"ranking.auc", "weights"}
    assert {row[-1] for row in reproduce.outcomes(FACTS, other, tolerance=0.001)} == {"same"}
    assert reproduce.told([], rows)[1].endswith("for a reason that the manifest does not hold")


def test_a_run_that_came_to_nothing_differs_in_everything():
    rows = reproduce.outcomes(FACTS, FACTS | {"outcome": None}, tolerance=0.0)
    assert [row[0] for row in rows if row[-1] == "same"] == ["snapshot", "ranking.ndcg@10"]


@pytest.mark.parametrize(
    ("part", "values", "told"),
    [
        ("data", {"sha256": "d2"}, "other data in /data: bring back sha256 d1"),
        ("features", {"declarations_sha256": "f2"}, "other feature definitions in /repo"),
        ("configuration", {"seed": 1}, "the preset 'tiny' means something else now"),
        ("code", {"commit": "def"}, "other code: check out commit abc"),
        ("code", {"dirty": True}, "code that no commit holds, now: the tree was dirty"),
        ("environment", {"python": "3.12.1"}, "other python: 3.11.7 then, 3.12.1 now"),
        ("environment", {"packages": {"torch": "2.14"}}, "other packages: polars 2.1 -> None, torch 2.13 -> 2.14"),
    ],
)
def test_what_differs_is_said_in_words(part, values, told):
    assert reproduce.causes(FACTS, changed(**{part: values})) == [told]


def test_a_run_whose_data_are_gone_is_refused(tmp_path):
    with pytest.raises(DataError, match="run 1 read its data from /data/nowhere, which is not here; bring it back"):
        reproduce.folder_of(changed(data={"folder": "/data/nowhere"}), "data")


def test_a_run_that_never_judged_a_model_cannot_be_compared(tmp_path, capsys):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/run_manifest.json").write_text(json.dumps(FACTS | {"outcome": None}))
    assert main(["reproduce", "1", "--runs", str(tmp_path)]) == 1
    assert "run 1 never judged a model, so there is nothing to compare" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "backtest"])
def test_the_word_list_in_place_of_a_preset_explains_all_presets_and_starts_nothing(command, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main([command, "--preset", "list", "--runs", str(tmp_path / "runs")])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in PRESETS)
    assert not (tmp_path / "runs").exists()
