from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from lrm.errors import DataError
from lrm.features.datasets.movielens_100k import read_typed
from lrm.features.datasets.prepare import prepare
from lrm.features.events import read_dataset
from lrm.features.run import retrieve_features
from lrm.features.split import cutoffs, parse_instant
from lrm.features.tables import read
from tests.features.datasets.published import ml_1m_files, ml_100k_files, unpacked, zipped

REPO = Path(__file__).parents[3] / "examples" / "ml-100k" / "feature_repo"

KEYS = ("user_id", "item_id")
LEARNT = ("genre_residual", "neighbour_residual", "neighbour_weight", "together_residual")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def table(folder, name):
    return pl.read_parquet(folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    unpacked(ml_100k_files(), root / "ml-100k")
    return prepare("ml-100k", data_root=root, out=root / "out")


@pytest.mark.parametrize(("name", "files"), [("ml-100k", ml_100k_files()), ("ml-1m", ml_1m_files())])
def test_the_published_archive_gives_the_same_tables_zipped_and_unpacked(tmp_path, name, files):
    zipped(files, tmp_path / f"{name}.zip")
    unpacked(files, tmp_path / "unpacked" / name)
    one = prepare(name, data_root=tmp_path, out=tmp_path / "a")
    other = prepare(name, data_root=tmp_path / "unpacked", out=tmp_path / "b")
    for path in one.glob("*.parquet"):
        assert pl.read_parquet(path).equals(pl.read_parquet(other / path.name))
    assert sorted(read_dataset(one)["source_sha256"]) == sorted(files)


def test_both_releases_agree_where_their_files_say_the_same(folder, tmp_path):
    zipped(ml_1m_files(), tmp_path / "ml-1m.zip")
    other = prepare("ml-1m", data_root=tmp_path, out=tmp_path)
    for name in ("events", "requests", "candidates", "items", "item_activity", "user_activity", "pairs"):
        assert table(folder, name).equals(table(other, name))


def test_movies_and_users_are_read(folder):
    items = table(folder, "items")
    assert items.select("title", "year", "genres").rows()[:3] == [
        ("Toy Case", 1995.0, ["Comedy"]),
        ("Amélie's Café", 1996.0, ["Comedy", "Drama"]),
        ("Star Dust", None, ["Sci-Fi"]),
    ]
    assert table(folder, "users").select("age", "gender", "occupation", "zip_region").rows() == [
        (24.0, "M", "technician", "8"),
        (53.0, "F", "other", "T"),
    ]


def test_rows_are_ordered_by_time_and_labelled_by_four_stars(folder):
    candidates = table(folder, "candidates")
    assert candidates["label"].to_list() == [1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 1]
    assert candidates["event_time"].is_sorted()
    assert table(folder, "requests").height == 10  # two ratings share an instant
    assert table(folder, "events")["rating"].to_list() == [5.0, 3.0, 4.0, 2.0, 1.0, 4.0, 5.0, 4.0, 2.0, 3.0, 5.0]


def test_the_cuts_are_the_instants_of_the_rows_at_80_and_90_percent(folder):
    dataset = read_dataset(folder)
    cuts = cutoffs(
        parse_instant(dataset["as_of"], "as_of"),
        validation_days=dataset["validation_days"],
        test_days=dataset["test_days"],
    )
    # of 11 rows, row 8 is at second 80 and row 9 at second 90
    assert [cut.timestamp() - 881250000 for cut in cuts] == [80, 90]
    assert dataset["as_of"] == datetime.fromtimestamp(881250091, UTC).isoformat()


def test_counters_use_rows_strictly_before(folder):
    user = table(folder, "user_activity").filter(user_id=2).select("user_ratings", "user_mean_rating", "user_like_rate")
    # user 2 rates 3, 2, 4, 4 and then 3 and 5 at one instant
    expected = [(0, None, 1 / 2), (1, 3, 1 / 3), (2, 2.5, 1 / 4), (3, 3, 2 / 5), (4, 3.25, 3 / 6), (6, 3.5, 4 / 8)]
    assert [pytest.approx(row) for row in user.rows()] == expected
    item = table(folder, "item_activity").filter(item_id=1).select("item_ratings", "item_mean_rating")
    assert item.rows() == [(0, None), (1, 5.0), (2, 4.0)]


def test_genre_affinity_counts_the_users_earlier_ratings_of_the_movies_genres(folder):
    pairs = table(folder, "pairs").select("user_id", "item_id", "genre_ratings", "genre_mean_rating", "genre_like_rate")
    rows = {row[:2]: row[2:] for row in pairs.rows()}
    assert rows[1, 1] == (0.0, None, 0.5)
    assert rows[1, 2] == pytest.approx((1.0, 5.0, 2 / 3))  # a comedy before: 5 stars
    assert rows[2, 5] == pytest.approx((3.0, 10 / 3, 3 / 5))  # Drama 4 and 4, Sci-Fi 2


def test_a_rating_is_compared_with_what_was_expected_of_movie_and_user_before(folder):
    pairs = {row[:2]: row[2:] for row in table(folder, "pairs").select(*KEYS, "expected_rating", *LEARNT).rows()}
    # User 1 gave 5 where 3 was usual, so leans by 2 / (1 + 3). All movies had a mean of 4 when it met movie 2, and of
    # 3.5 when it met movie 3, which had one 2 among five ratings counted at the mean.
    assert pairs[1, 1] == (3, 0, 0, 0, 0)
    assert pairs[1, 2] == (4.5, 0.5, 0, 0, 0)  # its comedy was 2 above: 2 / (1 + 3)
    assert pairs[1, 3][:2] == pytest.approx(((2 + 5 * 3.5) / 6 + 2 / (2 + 3), 0))


def test_surprises_of_users_and_residuals_of_movies_count_less_where_they_are_few(folder):
    user = table(folder, "user_activity").filter(user_id=1).select("user_surprise", "user_recent_surprise")
    # surprises 2, 0 and 1 - 3.25: over three ratings more for the mean of all, over two more for that of the last eight
    assert [pytest.approx(row) for row in user.rows()[:4]] == [
        (0, 0),
        (2 / 4, 2 / 3),
        (2 / 5, 2 / 4),
        (-1 / 24, -1 / 20),
    ]
    item = table(folder, "item_activity").filter(item_id=1).select("item_residual", "item_recent_residual")
    assert [pytest.approx(row) for row in item.rows()] == [(0, 0), (2 / 4, 2 / 3), (0, 0)]  # 2, then 3 - 5


def test_the_examples_follow_from_it(folder, tmp_path):
    retrieve_features(folder, REPO, tmp_path / "examples")
    tables = read(tmp_path / "examples")
    assert tables.requests["split"].to_list() == ["train"] * 8 + ["validation", "test"]
    assert tables.candidates["item_mean_rating"].to_list() == [
        None,
        5.0,
        None,
        None,
        2.0,
        4.0,
        None,
        5.0,
        None,
        2.0,
        None,
    ]
    assert tables.targets.rows()[-2:] == [(9, 5), (9, 6)]


def test_the_typed_files_give_the_same_content():
    files = {
        "ml-100k.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n2\t1\t3\t881250010\n",
        "ml-100k.user": b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        b"2\t53\tF\tother\tT8H1N\n",
        "ml-100k.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        b"1\tToy Case\t1995\tComedy Drama\n3\tStar Dust\t\tSci-Fi\n",
    }
    found = read_typed(files)
    assert found.ratings.rows() == [(2, 1, 3.0, 881250010)]
    assert found.users.rows() == [(2, 53.0, "F", "other", "T")]
    assert found.items.rows() == [(1, "Toy Case", 1995.0, ["Comedy", "Drama"]), (3, "Star Dust", None, ["Sci-Fi"])]


def test_a_row_with_a_field_too_few_is_named(tmp_path):
    unpacked(ml_100k_files() | {"u.user": b"1|24|M|technician\n"}, tmp_path / "ml-100k")
    with pytest.raises(DataError, match=r"line 1 has 4 fields, expected 5 \(user_id, age"):
        prepare("ml-100k", data_root=tmp_path, out=tmp_path)


def test_a_rating_of_an_unknown_movie_is_refused(tmp_path):
    files = ml_100k_files()
    unpacked(files | {"u.data": files["u.data"] + b"1\t77\t5\t881250100\n"}, tmp_path / "ml-100k")
    with pytest.raises(DataError, match=r"1 ratings name a item_id that has no row of its own, for instance 77"):
        prepare("ml-100k", data_root=tmp_path, out=tmp_path)


def test_too_few_ratings_are_refused(tmp_path):
    files = ml_100k_files()
    unpacked(files | {"u.data": files["u.data"][:24]}, tmp_path / "ml-100k")
    with pytest.raises(DataError, match=r"are too few to cut into train, validation and test"):
        prepare("ml-100k", data_root=tmp_path, out=tmp_path)


def test_an_archive_without_a_file_is_refused(tmp_path):
    files = ml_1m_files()
    files.pop("movies.dat")
    zipped(files, tmp_path / "ml-1m.zip")
    with pytest.raises(DataError, match=r"ml-1m.zip has no file 'movies.dat'. Obtain ml-1m.zip from https://grouplens"):
        prepare("ml-1m", data_root=tmp_path, out=tmp_path)


def test_a_damaged_archive_is_refused(tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"ml-1m.zip is no whole zip archive"):
        prepare("ml-1m", data_root=tmp_path, out=tmp_path)
