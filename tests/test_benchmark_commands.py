"""The command lines of benchmarks that read or write files of their own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.preset_comparison import without_times
from lrm.features.tables import read
from lrm.tokens.corpus import visible_counts
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


def test_a_comparison_of_presets_keeps_each_cell_and_finds_it_again(tmp_path):
    examples, results = write_examples(tmp_path / "examples"), tmp_path / "results"
    options = ["--data", "ml-1m", "--examples", str(examples), "--results", str(results), "--epochs", "1"]
    first = command("preset_comparison", *options, "--presets", "tiny", "none", "--seeds", "0")
    assert first.returncode == 0, first.stderr
    kept = {path: path.stat().st_mtime_ns for path in (results / "ml-1m").glob("*.json")}
    assert len(kept) == 2
    again = command("preset_comparison", *options, "--presets", "tiny", "none", "--seeds", "0", "1")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list((results / "ml-1m").glob("*.json"))) == 4
    assert "| tiny (2 seeds) |" in again.stdout
    assert "| HSTU | 0.3097 | 0.1720 |" in again.stdout


def test_without_times_a_comparison_keeps_every_users_order(tmp_path):
    tables = read(write_examples(tmp_path))
    bare = without_times(tables)
    assert bare.events.select("user_id", "item_id").equals(tables.events.select("user_id", "item_id"))
    assert bare.requests["request_id"].equals(tables.requests["request_id"])
    assert np.array_equal(visible_counts(bare), visible_counts(tables))
    hours = bare.events.select(gap=pl.col("event_time").diff().over("user_id").dt.total_hours())["gap"].drop_nulls()
    assert hours.is_between(0, 3).all()
