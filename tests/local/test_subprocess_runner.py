"""How a step's process is started, whatever its surroundings are."""

import os
import subprocess
import sys

from components.train_lrm import train_lrm
from local import run_layout, subprocess_runner
from local.prepare import PROJECT

TOLD = "python3 -m x; /srv/python3/it's $HOME `here`"


def step(program: str, *arguments: str) -> list[str]:
    return ["sh", "-ec", program, *arguments]


def test_the_interpreter_is_named_in_the_shell_program_alone():
    container = train_lrm.component_spec.implementation.container
    asked = [*container.command, "--executor_input", TOLD]
    made = subprocess_runner.with_interpreter(asked, "/home/ada/it's my/python")
    assert made[3:] == asked[3:]
    assert made[2] == asked[2].replace("python3", "'/home/ada/it'\"'\"'s my/python'")


def test_an_interpreter_with_a_space_in_its_path_starts_and_is_given_every_argument_as_it_is(
    tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("LRM_RUN_DIR", str(tmp_path / "run"))
    run_layout.temporary_of(tmp_path / "run").mkdir()
    linked = tmp_path / "my folder" / "python"
    linked.parent.mkdir()
    linked.symlink_to(sys.executable)
    program = 'python3 -m timeit -n 1 -r 1 -s "import sys; print(sys.executable)" "$0" >&2; printf "%s" "$1"'
    asked = subprocess_runner.with_interpreter(step(program, "pass", TOLD), str(linked))
    assert subprocess_runner.start(asked) == 0
    printed = capfd.readouterr()
    run_layout.temporary_of(tmp_path / "run").rmdir()
    assert TOLD in printed.out
    assert str(linked) in printed.out


def test_a_step_runs_the_code_of_this_checkout_and_none_of_the_current_folders(tmp_path, monkeypatch):
    (tmp_path / "lrm").mkdir()
    (tmp_path / "lrm/__init__.py").write_text("raise SystemExit('the wrong code')")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment = {**os.environ, **subprocess_runner.of_checkout(os.environ)}
    asked = [sys.executable, "-m", "lrm.features.datasets", "--help"]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "the wrong code" not in done.stdout + done.stderr
    monkeypatch.delenv("PYTHONPATH")
    environment = {**os.environ, **subprocess_runner.of_checkout(os.environ)}
    program = "import json, lrm; print(lrm.__file__)"
    asked = [sys.executable, "-c", program]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(PROJECT / "lrm/__init__.py")


def test_what_a_step_leaves_in_its_temporary_folder_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LRM_RUN_DIR", str(tmp_path / "run"))
    place = run_layout.temporary_of(tmp_path / "run")
    place.mkdir()
    assert subprocess_runner.start(step('mktemp -d && touch "$TMPDIR/more" && exit 3')) == 3
    assert list(place.iterdir()) == []
    place.rmdir()
