import sys

import polars as pl
import pytest

from lrm.errors import DataError
from lrm.features.datasets import __main__ as command
from lrm.features.datasets import amazon_beauty, movielens_1m
from lrm.features.datasets.leave_one_out import build_order
from lrm.features.datasets.prepare import prepare
from lrm.features.datasets.sources import installed_folder
from tests.features.datasets.published import ml_100k_files, unpacked


def test_a_whole_folder_is_reused_and_one_made_by_another_recipe_is_not(tmp_path):
    unpacked(ml_100k_files(), tmp_path / "ml-100k")
    folder = prepare("ml-100k", data_root=tmp_path, out=tmp_path / "out")
    (folder / "mark").touch()
    assert prepare("ml-100k", data_root=None, out=tmp_path / "out") == folder
    assert (folder / "mark").exists()
    dataset = folder / "dataset.json"
    dataset.write_text(dataset.read_text().replace('"recipe": "', '"recipe": "0'))
    prepare("ml-100k", data_root=tmp_path, out=tmp_path / "out")
    assert not (folder / "mark").exists()


def test_a_failure_leaves_nothing_half_written_and_the_old_folder_in_place(tmp_path):
    source = unpacked(ml_100k_files(), tmp_path / "ml-100k")
    folder = prepare("ml-100k", data_root=tmp_path, out=tmp_path / "out")
    dataset = folder / "dataset.json"
    dataset.write_text(dataset.read_text().replace('"recipe": "', '"recipe": "0'))
    (source / "u.item").unlink()
    with pytest.raises(DataError, match=r"has no file 'u.item'"):
        prepare("ml-100k", data_root=tmp_path, out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ml-100k"]
    assert (folder / "events.parquet").exists()


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no built-in data is called 'netflix'; there are complete-journey, .*ml-1m"):
        prepare("netflix", data_root=None, out=tmp_path)


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "amazon-beauty"])
def test_without_a_root_the_message_says_how_to_give_one_and_where_to_obtain_the_files(tmp_path, monkeypatch, name):
    monkeypatch.delenv("LRM_DATA_ROOT", raising=False)
    with pytest.raises(
        DataError, match=rf"{name} is read from .* --data-root DIR or set LRM_DATA_ROOT .* Obtain .*https://"
    ):
        prepare(name, data_root=None, out=tmp_path)


def test_a_root_without_the_data_says_what_it_holds(tmp_path):
    (tmp_path / "ml-10m").mkdir()
    with pytest.raises(DataError, match=r"holds neither ml-1m/ nor ml-1m.zip \(it has: ml-10m\)"):
        prepare("ml-1m", data_root=tmp_path, out=tmp_path / "ml-10m")
    with pytest.raises(DataError, match=r"\(it has: no such folder\)"):
        prepare("ml-1m", data_root=tmp_path / "absent", out=tmp_path / "out")


def test_a_file_with_another_checksum_is_refused(tmp_path):
    unpacked({"Beauty.txt": b"1 2 3\n", "Beauty_item2attributes.json": b"{}"}, tmp_path / "amazon-beauty")
    with pytest.raises(
        DataError, match=r"Beauty.txt has sha256 [0-9a-f]{64}, expected 226cce9c.*damaged or another version"
    ):
        prepare("amazon-beauty", data_root=tmp_path, out=tmp_path / "out")


def test_a_file_that_is_not_there_is_named(tmp_path):
    unpacked({"readme.txt": b""}, tmp_path / "amazon-beauty")
    with pytest.raises(DataError, match=r"amazon-beauty/Beauty.txt is missing. Obtain"):
        prepare("amazon-beauty", data_root=tmp_path, out=tmp_path / "out")


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(DataError, match=r"no_such_package is not installed; run `pip install it==1`"):
        installed_folder("no_such_package", install="it==1")


def test_each_users_last_event_is_the_test_target_and_the_one_before_it_the_validation_target(tmp_path):
    order = pl.DataFrame({"user_id": [1] * 8 + [2] * 3, "item_id": [*range(8), 5, 6, 7], "pos": [*range(8), 0, 1, 2]})
    about = build_order(order, tmp_path)
    events, requests = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("events", "requests"))
    assert events["split"].to_list() == [*["train"] * 6, "validation", "test", "train", "validation", "test"]
    assert events["event_time"].dt.day().to_list() == [*range(1, 9), 1, 2, 3]
    assert about["as_of"] == "2000-01-09T00:00:00+00:00"
    assert requests.filter(user_id=1)["split"].to_list() == ["train"] * 3 + ["validation", "test"]
    assert requests.filter(user_id=2)["split"].to_list() == ["validation", "test"]  # the first event has no history
    assert (requests["events_before"] == requests["event_time"].dt.day() - 1).all()


def test_beauty_is_read_line_by_line():
    assert amazon_beauty.read_order(b"1 10 11\n2 10\n").rows() == [(1, 10, 0), (1, 11, 1), (2, 10, 0)]
    assert amazon_beauty.read_attributes(b'{"11": [3], "10": [1, 2]}').select("item_id", "attributes").rows() == [
        (10, ["1", "2"]),
        (11, ["3"]),
    ]
    with pytest.raises(DataError, match=r"line 2 of Beauty.txt must be a user and its items as numbers, got '7'"):
        amazon_beauty.read_order(b"1 10 11\n7\n")


def test_the_ordered_parquet_of_ml_1m_needs_its_checksum(tmp_path):
    unpacked(dict.fromkeys(movielens_1m.SHA256, b"other"), tmp_path / "ml-1m")
    with pytest.raises(DataError, match=r"ml1m_ordered.parquet has sha256"):
        prepare("ml-1m", data_root=tmp_path, out=tmp_path / "out")


def test_the_command_prints_the_folder_or_the_reason(tmp_path, monkeypatch, capsys):
    unpacked(ml_100k_files(), tmp_path / "ml-100k")
    monkeypatch.setenv("LRM_DATA_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["datasets", "ml-100k", "--out", str(tmp_path / "out")])
    assert command.main() == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "ml-100k")
    monkeypatch.setattr(sys, "argv", ["datasets", "ml-1m", "--out", str(tmp_path / "out")])
    assert command.main() == 1
    assert "DataError" in capsys.readouterr().err
