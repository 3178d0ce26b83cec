"""What an item is, is read as it was known before any held-out event: a later rewrite never reaches the examples."""

from datetime import timedelta

import polars as pl
import pytest

from lrm.features.tables import read, read_manifest
from tests.data_worlds import INSTANT, START
from tests.features.conftest import change
from tests.features.test_events import hold_out_the_last

HELD_OUT = {"temporal": 30, "leave-one-out": 38.5}
"""Day on which the held-out part begins: the validation window, or the first event that is held out."""


@pytest.fixture(params=HELD_OUT)
def held_out(request, data):
    """The instant, in data of either protocol."""
    if request.param == "leave-one-out":
        hold_out_the_last(data)
    return START + timedelta(days=HELD_OUT[request.param])


def described_again(data, colour, *, known, true=None, items=None):
    """Add a row for each item that says another colour: true from `true` on, written at `known`."""

    def edit(rows):
        known_at, true_from = (pl.lit(at).cast(INSTANT) for at in (known, true or known))
        again = rows.unique("item_id", keep="first", maintain_order=True)
        again = again.filter(pl.col("item_id").is_in(items or again["item_id"].to_list()))
        again = again.with_columns(colour=pl.lit(colour), event_time=true_from, created_time=known_at)
        return pl.concat([rows, again])

    change(data, "items", edit)


def colours(examples):
    return set(read(examples).items["colour"].to_list())


def test_what_is_written_of_items_after_held_out_events_is_not_read(data, retrieve, held_out):
    before = read(retrieve(data)).items
    described_again(data, "sold in the end", known=START + timedelta(days=39, hours=13))
    described_again(data, "so it always was", known=held_out + timedelta(hours=1), true=START)
    after = retrieve(data)
    assert read(after).items.equals(before)
    assert read_manifest(after)["content_at"] == held_out.isoformat()
    assert read_manifest(after)["late"] != []
    assert [row for row in read_manifest(after)["late"] if row["n_late"]] == []


def test_what_was_known_when_the_held_out_part_began_is_read(data, retrieve, held_out):
    described_again(data, "yellow", known=held_out)
    described_again(data, "black", known=held_out + timedelta(microseconds=1))
    assert colours(retrieve(data)) == {"yellow"}


def test_an_item_that_came_later_is_as_it_was_at_its_first_event_and_no_later(data, retrieve, held_out):
    new, at = pl.lit(999, dtype=pl.Int64), START + timedelta(days=39, hours=12)
    is_first = (pl.col("event_time") == at) & (pl.col("user_id") == 1)
    change(data, "events", lambda rows: rows.with_columns(item_id=pl.when(is_first).then(new).otherwise("item_id")))
    now = pl.lit(at).cast(INSTANT)
    launched = {"item_id": new, "colour": pl.lit("new"), "event_time": now, "created_time": now}
    change(data, "items", lambda rows: pl.concat([rows, rows.head(1).with_columns(**launched)]))
    described_again(data, "chosen by reader 1", known=at + timedelta(hours=1), items=[999])
    described = read(retrieve(data)).items
    assert described.filter(item_id=999)["colour"].to_list() == ["new"]
    assert not described.filter(pl.col("item_id") != 999)["colour"].is_in(["new"]).any()


def test_an_item_without_events_is_as_it_was_when_the_held_out_part_began(data, retrieve, held_out):
    change(
        data, "items", lambda rows: pl.concat([rows, rows.head(1).with_columns(item_id=pl.lit(998, dtype=pl.Int64))])
    )
    described_again(data, "never sold", known=held_out + timedelta(hours=1), items=[998])
    described = read(retrieve(data)).items.filter(item_id=998)["colour"].to_list()
    assert described == read(retrieve(data)).items.filter(item_id=100)["colour"].to_list()
