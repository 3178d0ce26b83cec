"""The habits of the project: its changelog, its commit hooks and its hosted continuous integration."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parent.parent
HOOKS = PROJECT / ".pre-commit-config.yaml"
ENVIRONMENT = (".venv/bin/", "make ")
"""How a command starts that runs a program of the project's own environment."""
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def hooks():
    return [hook for repo in yaml.safe_load(HOOKS.read_text())["repos"] for hook in repo["hooks"]]


def targets():
    return re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)


def test_the_commit_hooks_are_a_valid_configuration():
    asked = [sys.executable, "-m", "pre_commit", "validate-config", str(HOOKS)]
    done = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_commit_hook_runs_a_program_of_the_projects_environment():
    assert {repo["repo"] for repo in yaml.safe_load(HOOKS.read_text())["repos"]} == {"local"}
    assert [hook["id"] for hook in hooks() if not hook["entry"].startswith(ENVIRONMENT)] == []
    made = [hook["entry"].split()[1] for hook in hooks() if hook["entry"].startswith("make ")]
    assert set(made) <= set(targets())
    named = [word for hook in hooks() for word in hook["entry"].split() if word.startswith("tests/")]
    assert [path for path in named if not (PROJECT / path).is_file()] == []


@pytest.mark.parametrize("command", ["format", "lint", "types", "compile", "manifests", "docs"])
def test_what_make_check_runs_is_a_commit_hook(command):
    check = re.search(r"^check: (.*?) *##", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert check
    assert command in check[1].split()
    assert command in {hook["id"] for hook in hooks()}


def test_hosted_continuous_integration_runs_the_projects_own_script():
    workflow = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    scripts = [step["run"] for step in steps if step.get("run", "").startswith(".")]
    assert scripts == [".ci/run"]
    assert os.access(PROJECT / scripts[0], os.X_OK)
    asked = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"python:{asked.removeprefix('>=')}-" in workflow["jobs"]["check"]["container"]


def test_the_changelog_begins_with_what_is_unreleased_and_then_the_declared_version():
    text = (PROJECT / "CHANGELOG.md").read_text()
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", headings[1])
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= KINDS
