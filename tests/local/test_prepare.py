import json
import re
import shlex
import subprocess

import pytest

from local import prepare
from local.prepare import PROJECT, code_version, data_version, find_data, start_run, versions
from lrm.errors import DataError, SchemaError
from pipeline import main
from tests.disks import small_disk

DATASET = {"name": "shop", "protocol": "temporal", "as_of": "2024-02-10T00:00:00Z"} | {
    "validation_days": 5,
    "test_days": 5,
    "horizon_seconds": 0,
}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "feature_repo").mkdir(parents=True)
    (folder / "feature_repo/views.py").write_text("a = 1\n")
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    (folder / "events.parquet").write_bytes(b"events")
    return folder


def begin(data, tmp_path, **changed):
    asked = {"runs": tmp_path / "runs", "state": tmp_path / "state", "as_of": "", "preset_name": "tiny", "seed": 3}
    return start_run(data, data / "feature_repo", **(asked | changed))


def test_a_folder_of_the_users_own_is_taken_with_its_feature_repo(data):
    assert find_data(str(data), None) == (data, data / "feature_repo")


def test_a_name_that_is_nothing_is_refused_with_the_names_that_exist(tmp_path):
    with pytest.raises(DataError, match=r"is neither built-in data \(complete-journey, .*\(no such folder\)"):
        find_data(str(tmp_path / "nothing"), None)
    with pytest.raises(DataError, match=r"dataset.json \(a folder without it\)"):
        find_data(str(tmp_path), None)


def test_a_data_folder_without_declarations_is_refused(data):
    (data / "feature_repo/views.py").unlink()
    (data / "feature_repo").rmdir()
    with pytest.raises(DataError, match="has no feature_repo/; copy the project's"):
        find_data(str(data), None)


def test_a_run_has_a_folder_of_its_own_that_says_what_was_asked(data, tmp_path):
    run_dir, arguments = begin(data, tmp_path)
    facts = json.loads((run_dir / "run.json").read_text())
    assert facts["run_id"] == run_dir.name
    assert facts["data"] == arguments["model_name"] == "shop"
    assert (facts["preset"], facts["seed"]) == ("tiny", 3)
    assert facts["parameters"] == arguments
    assert facts["versions"]["python"].startswith("3.")
    assert arguments["registry"] == f"sqlite:///{tmp_path}/state/mlflow.db"
    assert begin(data, tmp_path)[0] != run_dir


def test_a_run_that_a_full_disk_did_not_take_is_none(data, tmp_path):
    runs = tmp_path / "runs"
    with small_disk(runs, size="4k"):
        (runs / "full").write_bytes(bytes(4096))
        with pytest.raises(OSError, match="No space left on device"):
            begin(data, tmp_path)
        assert not list(runs.glob("*/run.json"))


def test_a_wrong_preset_leaves_nothing(data, tmp_path):
    with pytest.raises(SchemaError, match="no preset is called 'huge'"):
        begin(data, tmp_path, preset_name="huge")
    assert not (tmp_path / "runs").exists()


def test_a_dataset_without_a_name_leaves_nothing(data, tmp_path):
    (data / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match="the key 'name' is missing"):
        begin(data, tmp_path)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("seed", ["-1", "one"])
def test_a_seed_is_a_whole_number_from_zero_on(seed, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", f"--seed={seed}"])
    assert f"argument --seed: must be a whole number, zero or more, got '{seed}'" in capsys.readouterr().err


def test_the_versions_change_with_what_they_stand_for_and_with_nothing_else(data):
    repo = data / "feature_repo"
    before = data_version(data), code_version(repo)
    (repo / "__pycache__").mkdir()
    (repo / "__pycache__/views.pyc").write_bytes(b"x")
    assert (data_version(data), code_version(repo)) == before
    (data / "events.parquet").write_bytes(b"other")
    assert data_version(data) != before[0]
    (repo / "views.py").write_text("a = 2\n")
    assert code_version(repo) != before[1]


def link_to_nothing(path):
    path.symlink_to(path.with_name("gone.parquet"))


def spark_folder(path):
    path.mkdir()
    (path / "part-0000.parquet").write_bytes(b"PAR1")
    (path / "_SUCCESS").touch()


@pytest.mark.parametrize(
    ("put", "told"),
    [(link_to_nothing, "is a link to .*gone.parquet, which is not there"), (spark_folder, "one file, with polars")],
)
def test_a_table_that_is_no_file_is_named_before_a_run_has_a_folder(put, told, data, tmp_path, capsys):
    put(data / "users.parquet")
    assert main(["run", "--data", str(data), "--runs", str(tmp_path / "runs"), "--preset", "tiny"]) == 1
    assert re.search(f"^error: {data}/users.parquet .*{told}", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def git(*words, at):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=at, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    """A copy of the project inside another repository that has a commit."""
    (tmp_path / "outer/project").mkdir(parents=True)
    (tmp_path / "outer/readme").touch()
    (tmp_path / "outer/project/pipeline.py").touch()
    git("init", "--quiet", at=tmp_path / "outer")
    git("add", "readme", at=tmp_path / "outer")
    git("commit", "--quiet", "--message=outer", at=tmp_path / "outer")
    return tmp_path / "outer/project"


def test_the_commit_of_a_repository_that_does_not_hold_the_project_is_not_its_commit(project, monkeypatch):
    assert prepare.checkout(project) == {"commit": None, "dirty": None}
    git("init", "--quiet", at=project)
    git("add", ".", at=project)
    git("commit", "--quiet", "--message=own", at=project)
    own = prepare.checkout(project)
    assert (len(own["commit"]), own["dirty"]) == (40, False)
    monkeypatch.setenv("GIT_DIR", str(project.parent / ".git"))  # as in a hook of the outer one
    assert prepare.checkout(project) == own


def test_a_repository_that_holds_the_project_as_one_of_its_folders_names_its_commit(project):
    git("add", ".", at=project)
    git("commit", "--quiet", "--message=both", at=project)
    (project / "pipeline.py").write_text("changed")
    seen = prepare.checkout(project)
    assert (len(seen["commit"]), seen["dirty"]) == (40, True)


def test_the_command_that_is_kept_can_be_pasted_into_a_shell(data, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pipeline.py", "run", "--data", "my data", "--allow-backfill", "it's"])
    run_dir, _ = begin(data, tmp_path)
    told = json.loads((run_dir / "run.json").read_text())["command"]
    assert shlex.split(told) == ["python", "pipeline.py", "run", "--data", "my data", "--allow-backfill", "it's"]


@pytest.mark.parametrize("option", ["--state", "--runs", "--data-root"])
def test_an_address_is_no_folder(option, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--data", str(data), option, "gs://bucket/place"]) == 1
    assert f"error: {option} must be a folder of this machine, got 'gs:/bucket/place'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_ledger_in_another_store_is_refused_before_the_data_are_looked_for(capsys):
    assert main(["run", "--data", "nowhere", "--ledger", "s3://bucket/ledger"]) == 1
    assert "ledger 's3://bucket/ledger' is neither a folder nor gs://BUCKET/PATH" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["categories.json", "lists/colours.txt", "nested/more.py"])
def test_every_file_that_definitions_may_read_is_part_of_the_code_version(data, name):
    repo = data / "feature_repo"
    before = code_version(repo)
    (repo / name).parent.mkdir(exist_ok=True)
    (repo / name).write_text("red")
    added = code_version(repo)
    (repo / name).write_text("blue")
    assert len({before, added, code_version(repo)}) == 3


@pytest.mark.parametrize("name", ["policy.toml", ".views.py.swp", "nested/__pycache__/views.pyc", "data/registry.db"])
def test_what_no_reused_step_reads_is_not(data, name):
    before = code_version(data / "feature_repo")
    path = data / "feature_repo" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert code_version(data / "feature_repo") == before


def test_the_packages_that_join_and_read_the_data_are_among_the_versions():
    assert {"duckdb", "feast", "pandas", "polars", "pyarrow"} <= versions().keys()


def test_the_declarations_of_built_in_data_are_the_projects_or_an_examples():
    for name in ("ml-100k", "ml-1m", "amazon-beauty"):
        assert (PROJECT / "examples" / name / "feature_repo/views.py").is_file()
    assert (PROJECT / "feature_repo/views.py").is_file()
