import json

import pytest

from lrm.errors import DataError
from lrm.record import current_run, read_records, recorded, run_id


@recorded("bake", output="bread", keep=("crumbs.txt",))
def bake(flour, bread, *, loaves=1):
    (bread / "crumbs.txt").write_text("crumbs")
    if loaves < 1:
        raise DataError(f"loaves must be at least 1, got {loaves}")
    return {"loaves": loaves}


@recorded("slice", output="plate")
def cut(bread, plate):
    return {"slices": 12}


@recorded("serve", output="table")
def serve(plate, table):
    return {}


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "one"
    monkeypatch.setenv("LRM_RUN_DIR", str(folder))
    return folder


def test_a_door_gives_its_metrics_back_and_leaves_a_record_in_its_output(tmp_path):
    assert bake(tmp_path, tmp_path / "bread", loaves=3) == {"loaves": 3}
    record = json.loads((tmp_path / "bread/record.json").read_text())
    assert (record["step"], record["state"], record["metrics"]) == ("bake", "succeeded", {"loaves": 3})
    assert record["error"] is None
    assert record["seconds"] >= 0
    assert record["cpu_seconds"] >= 0
    assert record["peak_memory_mb"] > 1


def test_the_run_gets_the_record_and_the_kept_files(tmp_path, run_dir):
    bake(tmp_path, tmp_path / "bread")
    assert (run_dir / "steps/bake/crumbs.txt").read_text() == "crumbs"
    assert read_records(run_dir)["bake"]["state"] == "succeeded"


def test_a_failure_is_raised_and_recorded_and_still_keeps_the_files(tmp_path, run_dir):
    with pytest.raises(DataError, match="loaves must be at least 1, got 0"):
        bake(tmp_path, tmp_path / "bread", loaves=0)
    record = read_records(run_dir)["bake"]
    assert record["state"] == "failed"
    assert record["error"] == {"type": "DataError", "message": "loaves must be at least 1, got 0", "passes": False}
    assert (run_dir / "steps/bake/crumbs.txt").is_file()


def test_an_interrupt_is_recorded_too(tmp_path, run_dir):
    @recorded("wait", output="out")
    def wait(out):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait(tmp_path / "out")
    assert read_records(run_dir)["wait"]["error"]["type"] == "KeyboardInterrupt"


def test_a_step_is_seen_as_running_while_it_runs(tmp_path, run_dir):
    @recorded("look", output="out")
    def look(out):
        return {"seen": read_records(run_dir)["look"]["state"]}

    assert look(tmp_path / "out") == {"seen": "running"}


def test_inputs_that_did_not_run_this_time_are_shown_as_reused_down_to_the_first(tmp_path, run_dir, monkeypatch):
    monkeypatch.setenv("LRM_RUN_DIR", str(tmp_path / "runs/before"))
    bake(tmp_path, tmp_path / "bread")
    cut(tmp_path / "bread", tmp_path / "plate")
    monkeypatch.setenv("LRM_RUN_DIR", str(run_dir))
    serve(tmp_path / "plate", tmp_path / "table")
    states = {name: record["state"] for name, record in read_records(run_dir).items()}
    assert states == {"bake": "reused", "slice": "reused", "serve": "succeeded"}
    assert (run_dir / "steps/bake/crumbs.txt").is_file()


def test_an_input_that_ran_this_time_keeps_its_own_record(tmp_path, run_dir):
    bake(tmp_path, tmp_path / "bread")
    cut(tmp_path / "bread", tmp_path / "plate")
    assert read_records(run_dir)["bake"]["state"] == "succeeded"


def test_records_come_in_the_order_in_which_the_steps_started(tmp_path, run_dir):
    for step in (lambda: bake(tmp_path, tmp_path / "bread"), lambda: cut(tmp_path / "bread", tmp_path / "plate")):
        step()
    assert list(read_records(run_dir)) == ["bake", "slice"]


def test_without_a_run_a_door_only_writes_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LRM_RUN_DIR", raising=False)
    bake(tmp_path, tmp_path / "bread")
    assert [path.name for path in tmp_path.iterdir()] == ["bread"]
    assert current_run() is None
    assert run_id() == ""


def test_on_a_cluster_the_run_is_found_by_the_folder_of_all_runs_and_its_id(monkeypatch):
    monkeypatch.delenv("LRM_RUN_DIR", raising=False)
    monkeypatch.setenv("LRM_RUNS_ROOT", "/lrm/runs")
    assert current_run() is None
    monkeypatch.setenv("LRM_RUN_ID", "42")
    assert str(current_run()) == "/lrm/runs/42"
    assert run_id() == "42"
