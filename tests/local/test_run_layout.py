import json
import subprocess
import sys

from local import run_layout
from local.prepare import PROJECT

HOLDER = """
import sys, time
from pathlib import Path
from local.run_layout import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def begun(runs, run_id, *, state):
    folder = runs / run_id
    folder.mkdir(parents=True)
    (folder / "run_manifest.json").write_text(json.dumps({"state": state}))
    return folder


def wrote(run_dir, task):
    folder = run_layout.artifacts_of(run_dir) / "token-factory-x" / task / "out"
    folder.mkdir(parents=True)
    return folder


def test_a_run_holds_its_lock_until_its_last_process_is_killed(tmp_path):
    assert not run_layout.is_running(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert run_layout.is_running(tmp_path)
    process.kill()
    process.communicate()
    assert not run_layout.is_running(tmp_path)


def test_what_a_killed_run_left_half_written_is_removed_and_what_the_engine_may_reuse_stays(tmp_path):
    runs = tmp_path / "runs"
    killed, ended = begun(runs, "1", state="started"), begun(runs, "2", state="failed")
    whole, torn, other = wrote(killed, "retrieve-features"), wrote(killed, "train-lrm"), wrote(ended, "train-lrm")
    entry = runs / ".cache/p/key.json"
    entry.parent.mkdir(parents=True)
    entry.write_text(json.dumps({"examples": {"uri": str(whole)}, "Output": "text", "many": [{"uri": "gs://b/c"}]}))
    (killed / ".workspace").mkdir()
    assert set(run_layout.remove_leftovers(runs)) == {torn.parent, killed / ".workspace"}
    assert (whole.exists(), torn.exists(), other.exists()) == (True, False, True)


def test_what_the_steps_of_a_killed_run_left_in_the_temporary_folder_is_removed_and_a_running_ones_stays(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, running = (begun(tmp_path / "runs", run_id, state="started") for run_id in "12")
    for run_dir in (killed, running):
        (run_layout.temporary_of(run_dir) / "step-x").mkdir(parents=True)
    with run_layout.held(running):
        run_layout.remove_leftovers(tmp_path / "runs")
    assert not run_layout.temporary_of(killed).exists()
    assert run_layout.temporary_of(running).exists()


def test_what_a_killed_step_left_in_a_run_that_went_on_to_its_report_is_removed(tmp_path):
    run_dir = begun(tmp_path / "runs", "1", state="failed")
    torn, failed = wrote(run_dir, "train-lrm"), wrote(run_dir, "validate-data")
    (torn / "record.json").write_text('{"state": "running"}')
    (failed / "record.json").write_text('{"state": "failed"}')
    assert run_layout.remove_leftovers(tmp_path / "runs") == [torn.parent]


def test_torn_files_stop_no_run(tmp_path):
    run_dir = begun(tmp_path / "runs", "1", state="failed")
    torn, entry = wrote(run_dir, "train-lrm"), tmp_path / "runs/.cache/p/key.json"
    (torn / "record.json").touch()
    entry.parent.mkdir(parents=True)
    entry.touch()
    assert run_layout.entries(tmp_path / "runs") == {entry: []}
    assert run_layout.remove_leftovers(tmp_path / "runs") == [torn.parent]


def test_a_run_that_is_going_on_keeps_what_it_is_writing(tmp_path):
    run_dir = begun(tmp_path / "runs", "1", state="started")
    torn = wrote(run_dir, "train-lrm")
    with run_layout.held(run_dir):
        assert run_layout.remove_leftovers(tmp_path / "runs") == []
    assert torn.exists()


def test_steps_are_reused_only_with_the_same_packages(tmp_path, monkeypatch):
    before = run_layout.cache_of(tmp_path / "runs/1")
    assert before == run_layout.cache_of(tmp_path / "runs/2")
    other = tmp_path / "packages/torch-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert run_layout.cache_of(tmp_path / "runs/1") != before
