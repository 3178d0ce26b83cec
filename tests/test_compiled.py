"""The workflow as it is compiled for a cluster."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import main

PROJECT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("output", ["file/p.yaml", "/proc/none/p.yaml", "taken.yaml"])
def test_a_compiled_file_that_cannot_be_written_is_one_line_without_a_word_about_steps(output, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "taken.yaml").mkdir()
    assert main(["compile", "--output", str(tmp_path / output)]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: \S+ cannot be written \(.*\); name another file with --output\n", told)


def test_a_compiled_file_has_a_name_that_the_compiler_takes(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compile", "--output", "docs"])
    assert "argument --output: must be a file whose name ends in .yaml, got 'docs'" in capsys.readouterr().err


def compiled(path: Path, *options: str) -> tuple[dict, dict]:
    subprocess.run([sys.executable, "pipeline.py", "compile", "--output", str(path), *options], cwd=PROJECT, check=True)
    pipeline, platform = yaml.safe_load_all(path.read_text())
    return pipeline, platform


@pytest.fixture(scope="module")
def cluster_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiled(path, "--image", "registry.example/token-factory@sha256:0")
    return path


@pytest.fixture(scope="module")
def spec(cluster_file) -> dict:
    return next(iter(yaml.safe_load_all(cluster_file.read_text())))


def test_every_parameter_of_the_run_form_has_a_type_a_default_and_a_description(spec):
    for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items():
        assert "defaultValue" in parameter, name
        assert parameter["parameterType"] in ("STRING", "NUMBER_INTEGER"), name
        assert len(parameter["description"]) > 20, name


def test_no_parameter_invites_a_secret(spec):
    names = set(spec["root"]["inputDefinitions"]["parameters"])
    names |= {
        name for part in spec["components"].values() for name in part.get("inputDefinitions", {}).get("parameters", {})
    }
    assert [name for name in names if re.search(r"secret|password|passwd|credential|api_?key|access", name)] == []


def test_every_step_runs_on_one_image_and_installs_nothing(spec):
    containers = [executor["container"] for executor in spec["deploymentSpec"]["executors"].values()]
    assert {container["image"] for container in containers} == {"registry.example/token-factory@sha256:0"}
    assert [container for container in containers if "pip" in " ".join(container["command"]).split()] == []


def test_every_step_sees_the_shared_volume_and_knows_its_run(cluster_file, spec):
    _, platform = yaml.safe_load_all(cluster_file.read_text())
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(placed) == set(spec["deploymentSpec"]["executors"])
    for step in placed.values():
        assert step["pvcMount"][0]["mountPath"] == "/lrm"
        assert step["fieldPathAsEnv"][0]["name"] == "LRM_RUN_ID"


def test_every_step_says_that_it_runs_as_the_images_user_who_is_not_root(cluster_file):
    _, platform = yaml.safe_load_all(cluster_file.read_text())
    image = (PROJECT / "Dockerfile").read_text().partition("FROM base-train AS train\n")[2]
    user = re.search(r"^USER (\d+):\1$", image, re.MULTILINE)[1]
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    said = [step["securityContext"] for step in placed]
    assert len(said) == 12
    assert all(one == {"runAsUser": user, "runAsGroup": user, "runAsNonRoot": True} for one in said)


def test_every_step_knows_its_image_so_that_manifests_keep_the_digest(spec):
    containers = [executor["container"] for executor in spec["deploymentSpec"]["executors"].values()]
    assert [container["env"] for container in containers] == [
        [{"name": "LRM_IMAGE", "value": container["image"]}] for container in containers
    ]


def test_on_a_cluster_steps_that_touch_the_outside_world_are_never_cached(spec):
    dags = [spec["root"], *spec["components"].values()]
    tasks = {name: task for part in dags for name, task in part.get("dag", {}).get("tasks", {}).items()}
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"validate-data", "pretrain-token-factory", "train-lrm"}
    assert "validate-data" in tasks["pretrain-token-factory"]["dependentTasks"]


@pytest.mark.parametrize(("options", "seconds"), [((), "86400"), (("--step-timeout", "2h"), "7200")])
def test_every_step_on_a_cluster_has_a_time_limit(tmp_path, options, seconds):
    _, platform = compiled(tmp_path / "pipeline.yaml", *options)
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert {step["activeDeadlineSeconds"] for step in placed} == {seconds}


def test_compiling_twice_gives_the_same_bytes(cluster_file, tmp_path):
    compiled(tmp_path / "again.yaml", "--image", "registry.example/token-factory@sha256:0")
    assert (tmp_path / "again.yaml").read_bytes() == cluster_file.read_bytes()
