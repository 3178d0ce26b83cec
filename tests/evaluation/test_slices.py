import numpy as np
import polars as pl

from lrm.evaluation.predictions import histories
from lrm.evaluation.slices import slices
from lrm.schema import Signal
from tests.worlds import SIGNALS, renamed


def named(tables, signals=SIGNALS):
    return {part.name: part for part in slices(tables, signals, histories(tables))}


def test_new_users_are_those_without_training_events(tables):
    events = tables.events.filter(~((pl.col("user_id") == 7) & (pl.col("split") == "train")))
    parts = named(tables._replace(events=events))
    new = parts["new users"].requests
    assert tables.requests["user_id"].filter(pl.Series(new)).unique().to_list() == [7]
    assert (parts["returning users"].requests == ~new).all()


def test_a_slice_of_everybody_is_left_out(tables):
    assert "returning users" not in named(tables)


def test_head_items_hold_half_of_the_training_events(tables):
    parts = named(tables)
    head = parts["head items"].items
    trained = tables.events.filter(split="train")
    held = trained["item_id"].is_in(tables.items["item_id"].filter(pl.Series(head)).implode()).mean()
    assert 0.5 <= held < 0.56
    assert (parts["tail items"].items == ~head).all()


def test_history_terciles_part_the_requests(tables):
    masks = [part.requests for name, part in named(tables).items() if name.startswith("history of")]
    assert len(masks) == 3
    assert (np.sum(masks, axis=0) == 1).all()


def test_a_declared_category_becomes_a_slice_without_further_code(tables):
    assert {name for name in named(tables) if name.startswith("country")} == {f"country = c{i}" for i in range(4)}
    declared = Signal(name="weather", kind="sparse", makers=("query",), entity="request", view="requests")
    requests = tables.requests.with_columns(weather=pl.Series(["wet", "dry", None] * (tables.requests.height // 3)))
    parts = named(tables._replace(requests=requests), (*SIGNALS, declared))
    assert (parts["weather = wet"].requests == (requests["weather"] == "wet").fill_null(False).to_numpy()).all()


def test_a_signal_may_be_called_count(tables):
    assert "count = c0" in named(*renamed(tables, country="count"))


def test_a_signal_of_many_categories_gives_no_slices(tables):
    declared = Signal(name="shop", kind="sparse", makers=("query",), entity="request", view="requests")
    requests = tables.requests.with_columns(shop=pl.format("s{}", pl.int_range(pl.len()) % 13))
    assert not [name for name in named(tables._replace(requests=requests), (declared,)) if name.startswith("shop")]


def test_rows_are_picked_by_their_request_or_by_their_item(tables):
    parts = named(tables)
    request_id, item = np.array([0, 5]), np.array([3, 4])
    part = parts["country = c0"]
    assert part.rows(request_id, item).tolist() == part.requests[request_id].tolist()
    assert parts["head items"].rows(request_id, item).tolist() == parts["head items"].items[item].tolist()
