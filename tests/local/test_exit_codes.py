"""The exit code of a run says how it ended, to a scheduler as well as to make."""

import os
import subprocess
import sys

import pytest

from local.exit_codes import ENDED, FAILED, HELP, INTERRUPTED, KEPT, SUCCEEDED, SUSPECT, exit_code
from local.prepare import PROJECT

ODD = [{"step": "validate_data", "kind": "drift", "what": "hour has drifted.", "value": 0.2, "bar": 0.1}]


@pytest.mark.parametrize(
    ("verdict", "warnings", "plain", "detailed"),
    [
        ("promote", [], SUCCEEDED, SUCCEEDED),
        ("promote", ODD, SUCCEEDED, SUSPECT),
        ("keep", [], SUCCEEDED, KEPT),
        ("keep", ODD, SUCCEEDED, SUSPECT),
        ("reject", [], SUSPECT, SUSPECT),
        ("inconclusive", [], SUSPECT, SUSPECT),
        ("inconclusive", ODD, SUSPECT, SUSPECT),
    ],
)
def test_a_person_is_called_for_what_is_rejected_or_not_to_be_trusted_and_not_for_a_kept_champion(
    verdict, warnings, plain, detailed
):
    summary = {"verdict": verdict, "warnings": warnings}
    assert exit_code(summary, detailed=False) == plain
    assert exit_code(summary, detailed=True) == detailed


def test_the_help_of_run_explains_every_exit_code():
    command = [sys.executable, "pipeline.py", "run", "--help"]
    shown = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert HELP in shown
    for code in (FAILED, 2, INTERRUPTED, *ENDED):
        assert f"\n  {code} " in HELP


@pytest.mark.parametrize(("code", "ended"), [(0, 0), (3, 0), (4, 0), (1, 2), (2, 2), (130, 2)])
def test_a_verdict_is_no_error_of_make_and_a_failure_is(tmp_path, code, ended):
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    (tmp_path / ".installed").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "run", f"VENV={tmp_path}"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == ended, done.stderr
    assert (f"Error {code}" in done.stderr) == (ended != 0)
