"""The worked example of docs/own-data.md, run as the page says."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from lrm.features.run import retrieve_features
from lrm.features.tables import read, read_declared, read_manifest

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = "python examples/own-data/make_data.py data/bookshop"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def bookshop(tmp_path_factory):
    assert COMMAND in (PROJECT / "docs" / "own-data.md").read_text()
    folder = tmp_path_factory.mktemp("data") / "bookshop"
    script = COMMAND.split()[1]
    subprocess.run([sys.executable, PROJECT / script, folder], check=True, capture_output=True)
    retrieve_features(folder, folder / "feature_repo", folder.parent / "examples")
    return folder.parent / "examples"


@pytest.mark.parametrize(
    ("given", "status", "told"),
    [
        ([], 2, "the following arguments are required: folder"),
        (["/proc/none"], 1, "error: /proc/none cannot be written ("),
    ],
)
def test_without_a_folder_to_write_it_says_what_it_wants(given, status, told):
    script = PROJECT / COMMAND.split()[1]
    done = subprocess.run([sys.executable, script, *given], capture_output=True, text=True)
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_worked_example_becomes_examples_with_every_signal(bookshop):
    tables = read(bookshop)
    assert {signal.name for signal in read_declared(bookshop)} == {
        *("paid", "weekday", "town", "author", "pages", "price", "author_bought")
    }
    assert read_manifest(bookshop)["service"] == "bookshop"
    assert tables.candidates["price"].null_count() == 0
    assert tables.requests.group_by("split").len().height == 3


def test_its_counter_counts_what_was_bought_strictly_before(bookshop):
    tables = read(bookshop)
    candidates = tables.candidates.join(tables.requests.select("request_id", "user_id", "event_time"), on="request_id")
    sold = tables.events.select("user_id", "author", sold="event_time")
    earlier = candidates.join(sold, on=["user_id", "author"]).filter(pl.col("sold") < pl.col("event_time"))
    counted = candidates.join(earlier.group_by("candidate_id").len(), on="candidate_id", how="left")
    assert counted["author_bought"].to_list() == counted["len"].fill_null(0).cast(pl.Float32).to_list()


def test_its_signal_of_the_pair_tells_who_buys(bookshop):
    candidates = read(bookshop).candidates
    regulars = candidates.filter(pl.col("author_bought") >= 5)["label"].mean()
    strangers = candidates.filter(pl.col("author_bought") < 1)["label"].mean()
    assert regulars > 3 * strangers
