import importlib
import json
from pathlib import Path

import pytest
from kfp import dsl

from components.step import IMAGE, log_metrics, step

FOLDER = Path(__file__).resolve().parents[2] / "components"
STEPS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "step", "cluster"))


def component(name: str):
    return getattr(importlib.import_module(f"components.{name}"), name)


@pytest.mark.parametrize("name", STEPS)
def test_every_step_and_every_input_of_it_is_described(name):
    made = component(name)
    assert made.description
    inputs = made.component_spec.inputs or {}
    assert [key for key, value in inputs.items() if not value.description] == []


@pytest.mark.parametrize("name", STEPS)
def test_every_step_runs_on_the_one_image_and_installs_nothing(name):
    container = component(name).component_spec.implementation.container
    assert container.image == IMAGE
    assert "pip install" not in " ".join(container.command)


@pytest.mark.parametrize("name", sorted(set(STEPS) - {"report_run"}))
def test_every_step_leaves_its_numbers_for_the_ui(name):
    outputs = component(name).component_spec.outputs
    assert outputs["metrics"].type == "system.Metrics@0.0.1"


@pytest.mark.parametrize(
    ("name", "artifact", "kind"),
    [
        ("retrieve_features", "examples", "Dataset"),
        ("validate_data", "page", "HTML"),
        ("pretrain_token_factory", "factory", "Model"),
        ("train_lrm", "model", "Model"),
        ("evaluate_model", "page", "HTML"),
        ("report_run", "page", "HTML"),
        ("report_run", "summary", "Markdown"),
    ],
)
def test_what_a_person_wants_to_see_is_typed_so_that_the_ui_shows_it(name, artifact, kind):
    assert component(name).component_spec.outputs[artifact].type == f"system.{kind}@0.0.1"


@pytest.mark.parametrize("name", ["find_champion", "evaluate_model", "register_model", "promote_model"])
def test_a_value_that_another_step_waits_for_is_one_plain_string(name):
    assert component(name).component_spec.outputs["Output"].type == "String"


def test_only_finite_numbers_are_logged_and_all_values_are_kept_in_the_file(tmp_path):
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    log_metrics(metrics, {"auc": 0.5, "n": 3, "verdict": "keep", "nan": float("nan"), "is_new": True})
    assert metrics.metadata == {"auc": 0.5, "n": 3}
    assert json.loads((tmp_path / "metrics").read_text())["verdict"] == "keep"


def test_a_step_is_named_after_its_function():
    def rest(seconds: int) -> str:
        return str(seconds)

    assert step(rest).name == "rest"
