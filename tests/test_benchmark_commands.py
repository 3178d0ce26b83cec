"""The command lines of benchmarks that read or write files of their own."""

import json
import subprocess
import sys
from pathlib import Path

from tests.worlds import write_examples

PROJECT = Path(__file__).resolve().parent.parent


def command(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=False)


def test_the_table_of_steps_says_what_it_takes():
    done = command("steps", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs/latest/summary.json" in done.stdout
    assert command("steps", "nowhere.json").stderr == "error: nowhere.json is missing; make run writes it\n"


def test_learning_curves_are_written_to_a_folder_that_was_not_there(tmp_path):
    examples, curves = write_examples(tmp_path / "examples"), tmp_path / "not/yet/curves"
    options = ["--preset", "tiny", "--epochs", "1", "--peers", "--examples", str(examples), "--curves", str(curves)]
    done = command("sequential", *options)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(curves.with_suffix(".json").read_text())) == ["ours"]
    assert curves.with_suffix(".html").is_file()
