"""The door: everything is written before a run stops, and the message says what, where, how many and what to do."""

from __future__ import annotations

import json
import re
import shutil
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from lrm.errors import DataError, ValidationFailed
from lrm.schema import write_signals
from lrm.validation.run import drift_since, validate_data
from tests.validation.conftest import declared_signals, write_world

FILES = {"validation.json", "validation.html", "statistics.json", "quarantine.parquet", "record.json"}


@pytest.fixture
def examples(world: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(world, tmp_path / "examples"))


@pytest.fixture(scope="module")
def sound(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The validation of the sound world."""
    validation = tmp_path_factory.mktemp("validation")
    validate_data(world, None, validation)
    return validation


def edit(examples: Path, table: str, *columns: pl.Expr) -> None:
    path = examples / f"{table}.parquet"
    pl.read_parquet(path).with_columns(*columns).write_parquet(path)


def first(column: str, rows: int, value: object) -> pl.Expr:
    return pl.when(pl.int_range(pl.len()) < rows).then(value).otherwise(column).alias(column)


def failure(examples: Path, validation: Path) -> str:
    with pytest.raises(ValidationFailed) as raised:
        validate_data(examples, None, validation)
    return str(raised.value)


def test_a_sound_world_is_fit_to_train_on(sound: Path):
    assert {path.name for path in sound.iterdir()} == FILES
    written = json.loads((sound / "validation.json").read_text())
    assert (written["success"], written["n_critical"], written["n_warning"]) == (True, 0, 0)
    assert pl.read_parquet(sound / "quarantine.parquet").shape == (0, 5)
    assert "Fit to train on" in (sound / "validation.html").read_text()
    record = json.loads((sound / "record.json").read_text())
    assert record["state"] == "succeeded"
    assert record["metrics"]["n_checks"] == len(written["checks"]) > 100


def test_a_critical_failure_names_check_column_count_rows_and_page(examples: Path, tmp_path: Path):
    edit(examples, "candidates", first("price", 7, pl.lit(-1.5, pl.Float32)))
    validation = tmp_path / "validation"
    message = failure(examples, validation)
    assert re.search(
        r"training must not start on this data: 1 critical check failed\n"
        r"- candidates\.price: in range \(expected at least 0\): 7 bad rows; for example "
        r"candidate_id=0 request_id=0 item_id=\d+ price=-1\.5 and ",
        message,
    )
    assert str(validation / "validation.html") in message
    assert "feature_repo/views.py" in message


def test_everything_is_written_before_the_run_stops(examples: Path, tmp_path: Path):
    edit(examples, "candidates", first("price", 7, pl.lit(-1.5, pl.Float32)))
    validation = tmp_path / "validation"
    failure(examples, validation)
    assert {path.name for path in validation.iterdir()} == FILES
    assert json.loads((validation / "validation.json").read_text())["success"] is False
    assert "Stopped: 1 critical check failed" in (validation / "validation.html").read_text()
    assert json.loads((validation / "statistics.json").read_text())["candidates"]["rows"] == 4320
    assert json.loads((validation / "record.json").read_text())["state"] == "failed"


def test_bad_rows_are_copied_to_quarantine_and_stay_where_they_are(examples: Path, tmp_path: Path):
    edit(examples, "candidates", first("price", 7, pl.lit(float("inf"), pl.Float32)))
    before = (examples / "candidates.parquet").read_bytes()
    failure(examples, tmp_path / "validation")
    rows = pl.read_parquet(tmp_path / "validation" / "quarantine.parquet")
    assert rows.columns == ["table", "row_id", "column", "reason", "row"]
    assert rows["row_id"].to_list() == [str(number) for number in range(7)]
    assert set(rows["reason"]) == {"finite: expected no NaN, no infinity; seen inf"}
    assert json.loads(rows["row"][3])["candidate_id"] == 3
    assert (examples / "candidates.parquet").read_bytes() == before


def test_warnings_do_not_stop_the_run(examples: Path, tmp_path: Path):
    edit(examples, "requests", pl.lit(5.0, pl.Float32).alias("hour"))
    metrics = validate_data(examples, None, tmp_path / "validation")
    assert (metrics["n_critical"], metrics["n_warning"]) == (0, 1)
    assert "Fit to train on, with 1 thing to look at" in (tmp_path / "validation" / "validation.html").read_text()


def test_drift_against_the_champion_annotates_the_run(examples: Path, sound: Path, tmp_path: Path):
    edit(examples, "events", pl.col("spent") * 10)
    metrics = validate_data(examples, sound / "statistics.json", tmp_path / "validation")
    assert (metrics["n_critical"], metrics["n_drifted"]) == (0, 1)
    drift = json.loads((tmp_path / "validation" / "validation.json").read_text())["drift"]
    assert (drift[0]["signal"], drift[0]["drifted"]) == ("spent", True)
    assert {"signal", "distance", "measure", "threshold", "drifted"} <= set(drift[0])


def test_a_missing_signal_is_named_and_the_others_are_still_judged(examples: Path, tmp_path: Path):
    path = examples / "requests.parquet"
    pl.read_parquet(path).drop("age").write_parquet(path)
    edit(examples, "events", first("spent", 1, pl.lit(float("nan"), pl.Float32)))
    message = failure(examples, tmp_path / "validation")
    assert "- requests.age: present with its type (expected Float32): saw absent" in message
    assert "- events.spent: finite" in message


def test_a_missing_key_stops_at_the_structure(examples: Path, tmp_path: Path):
    path = examples / "events.parquet"
    pl.read_parquet(path).drop("user_id").write_parquet(path)
    message = failure(examples, tmp_path / "validation")
    assert "- events.user_id: present with its type (expected Int64 or String): saw absent" in message
    assert json.loads((tmp_path / "validation" / "statistics.json").read_text()) == {}


def test_an_empty_table_stops_the_run(examples: Path, tmp_path: Path):
    path = examples / "targets.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    assert "- targets: has rows (expected at least one row): saw 0" in failure(examples, tmp_path / "validation")


def test_a_missing_table_or_reference_says_where_it_should_come_from(examples: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"champion\.json is missing: the champion's statistics; pass no reference"):
        validate_data(examples, tmp_path / "champion.json", tmp_path / "validation")
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(DataError, match=r"damaged\.json is not JSON .* take it from the champion's model folder again"):
        validate_data(examples, tmp_path / "damaged.json", tmp_path / "validation")
    (examples / "targets.parquet").unlink()
    with pytest.raises(DataError, match=r"targets\.parquet is missing; .* written by the step retrieve_features"):
        validate_data(examples, None, tmp_path / "validation")


def test_the_same_examples_give_the_same_files(world: Path, sound: Path, tmp_path: Path):
    validate_data(world, None, tmp_path)
    for name in FILES - {"record.json"}:
        assert (tmp_path / name).read_bytes() == (sound / name).read_bytes(), name


class Page(HTMLParser):
    """Collects what a browser would fetch, and the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_asks_nothing_of_any_other_host_and_escapes_what_it_shows(examples: Path, sound: Path, tmp_path: Path):
    write_signals(declared_signals(), examples / "signals.json")
    edit(examples, "events", first("colour", 2, pl.lit("<script>alert(1)</script>")))
    with pytest.raises(ValidationFailed):
        validate_data(examples, sound / "statistics.json", tmp_path / "validation")
    text = (tmp_path / "validation" / "validation.html").read_text()
    page = Page()
    page.feed(text)
    assert page.links == []
    assert not page.tags & {"script", "link", "iframe", "img", "object"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_another_draw_of_the_same_users_world_is_no_drift_of_their_own_signals(sound: Path, tmp_path: Path):
    other = write_world(tmp_path / "examples", seed=5)
    validate_data(other, sound / "statistics.json", tmp_path / "validation")
    drift = json.loads((tmp_path / "validation" / "validation.json").read_text())["drift"]
    own = {"spent", "age", "country", "hour", "affinity"}
    assert not [row["signal"] for row in drift if row["drifted"] and row["signal"] in own]


def test_drift_of_the_newest_rows_is_not_diluted_by_the_older_ones(examples, sound):
    newest = pl.read_parquet(examples / "requests.parquet")["event_time"].max()
    requests = pl.read_parquet(examples / "requests.parquet")
    name = next(signal.name for signal in declared_signals() if signal.kind == "dense" and "query" in signal.makers)
    moved = pl.when(pl.col("event_time") == newest).then(pl.lit(1e6)).otherwise(name).cast(pl.Float32).alias(name)
    requests.with_columns(moved).write_parquet(examples / "requests.parquet")
    rows = drift_since(examples, sound / "statistics.json", newest.isoformat())
    assert [row["signal"] for row in rows if row["drifted"]] == [name]
    assert {row["table"] for row in rows} <= {"events", "requests", "candidates"}
    tomorrow = newest + timedelta(days=30)
    assert drift_since(examples, sound / "statistics.json", tomorrow.isoformat()) == []
