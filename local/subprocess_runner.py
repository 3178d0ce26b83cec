"""Each step in a process of its own, through the engine's subprocess runner.

A step runs this checkout's code, wherever the command was typed, and what it leaves in its temporary folder is removed
with it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local import run_layout
from local.prepare import PROJECT
from lrm.record import RUN_DIR

PYTHON = "python3 -m "
"""How the engine's shell program calls the interpreter."""


def runner(run_dir: Path) -> Any:
    """The engine's runner, which starts every step as `start` does; makes the temporary folder of a run."""
    from kfp import local
    from kfp.local import subprocess_task_handler

    subprocess_task_handler.replace_python_executable = with_interpreter
    subprocess_task_handler.run_local_subprocess = start
    run_layout.temporary_of(run_dir).mkdir(mode=0o700)
    return local.SubprocessRunner(use_venv=False)


def with_interpreter(full_command: list[str], new_executable: str) -> list[str]:
    """A step's command with the interpreter's path in its shell program, and its arguments as they are.

    Stands in for `kfp.local.subprocess_task_handler.replace_python_executable`, which replaces the text `python3` in
    paths and sentences too, and does not quote the path.
    """
    shell, options, program, *arguments = full_command
    assert PYTHON in program, f"the engine starts steps in another way now: {program!r}"
    return [shell, options, program.replace(PYTHON, f"{shlex.quote(new_executable)} -m "), *arguments]


def start(full_command: list[str], env_vars: Mapping[str, str] | None = None) -> int:
    """Run one step to its end, with what it prints passed on; returns its exit status.

    Stands in for `kfp.local.subprocess_task_handler.run_local_subprocess`, whose steps run the code of the current
    folder, and leave a folder each.
    """
    place = run_layout.temporary_of(Path(os.environ[RUN_DIR]))
    with tempfile.TemporaryDirectory(dir=place, prefix="step-", ignore_cleanup_errors=True) as own:
        environment = {**os.environ, **(env_vars or {}), **of_checkout(os.environ), "TMPDIR": own}
        with subprocess.Popen(
            full_command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line.decode(errors="replace"), end="")
            return process.wait()


def of_checkout(given: Mapping[str, str]) -> dict[str, str]:
    """What has Python take this checkout's code, and none of the current folder's."""
    paths = [str(PROJECT), *filter(None, [given.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
