"""A path is a name and never a pattern; what is no file is told."""

import shutil

import polars as pl
import pytest

from lrm.errors import DataError
from lrm.features import store
from lrm.features.feast_repo import declarations
from lrm.features.join import point_in_time
from lrm.features.run import retrieve_features
from lrm.features.sources import read_view
from lrm.features.tables import read
from tests.features.conftest import change

ODD = "it's [1]*? \u00e4\u00f6 50%#x%41 y"


def test_a_folder_whose_name_looks_like_a_pattern_is_read_itself_and_not_the_one_beside_it(untouched, tmp_path):
    own = shutil.copytree(untouched, tmp_path / "shop[1]")
    other = shutil.copytree(untouched, tmp_path / "shop1")
    for table in ("events", "requests", "candidates", "users"):
        change(other, table, lambda rows: rows.filter(pl.col("user_id") == 1))
    retrieve_features(own, own / "feature_repo", tmp_path / "examples[1]")
    shutil.copytree(tmp_path / "examples[1]", tmp_path / "examples1")
    (tmp_path / "examples1/events.parquet").write_bytes(b"of another run")
    assert read(tmp_path / "examples[1]").events["user_id"].n_unique() == 20


def test_a_folder_of_any_name_gives_the_same_examples(examples, untouched, tmp_path):
    data = shutil.copytree(untouched, tmp_path / ODD / "data")
    retrieve_features(data, data / "feature_repo", tmp_path / ODD / "examples")
    for table, expected in zip(read(tmp_path / ODD / "examples"), read(examples), strict=True):
        assert table.equals(expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_feasts_own_engine_reads_a_folder_of_any_name_as_well(untouched, tmp_path):
    data = shutil.copytree(untouched, tmp_path / ODD / "shop[1]")
    shutil.copytree(untouched, tmp_path / ODD / "shop1")
    change(tmp_path / ODD / "shop1", "users", lambda users: users.with_columns(age=pl.lit(1.0)))
    view = next(view for view in declarations(data / "feature_repo", data).joined if view.name == "user_profile")
    rows = pl.read_parquet(data / "requests.parquet", glob=False).select("user_id", "event_time")
    found = store.retrieve(data / "feature_repo", data, rows, "event_time", view)
    assert found.equals(point_in_time(rows, "event_time", view, read_view(view)))


def test_a_table_that_is_a_folder_or_a_link_to_nothing_is_told(data, tmp_path):
    (data / "users.parquet").unlink()
    (data / "users.parquet").symlink_to("gone.parquet")
    with pytest.raises(DataError, match=r"users.parquet is a link to gone.parquet, which is not there; mend the link"):
        retrieve_features(data, data / "feature_repo", tmp_path / "examples")
    (data / "users.parquet").unlink()
    (data / "users.parquet").mkdir()
    with pytest.raises(DataError, match=r"users.parquet is a folder, .* as Spark leaves them, into one file"):
        retrieve_features(data, data / "feature_repo", tmp_path / "examples")
