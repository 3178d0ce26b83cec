import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lrm.config import TokensConfig
from lrm.errors import SchemaError
from lrm.features.tables import read, read_declared
from lrm.schema import DERIVED, Signal
from lrm.tokens import vocabulary as vocabularies
from lrm.tokens.corpus import fit_vocabulary, with_gaps
from lrm.tokens.signals import encode
from lrm.tokens.vocabulary import GAP_HOURS, Vocabulary
from tests.worlds import renamed, write_examples

PRICE = Signal(name="price", kind="dense", makers=("candidate",), entity="item", view="v")
COLOUR = Signal(name="colour", kind="sparse", makers=("candidate",), entity="item", view="v")
TAGS = Signal(name="tags", kind="bag", makers=("candidate",), entity="item", view="v")
VECTOR = Signal(name="vector", kind="embedding", makers=("candidate",), entity="item", view="v", dim=2)
FITTED = Vocabulary(
    item_ids=np.array([10, 20, 30]),
    item_counts=np.array([5, 0, 9]),
    min_item_count=5,
    n_buckets=4,
    categories={"colour": ["blue", "red"], "tags": ["a", "b"]},
    edges={"price": [1.0, 2.0, 3.0]},
    scales={"price": (0.0, 1.0)},
    limits={"price": (-5.0, 5.0)},
    bag_widths={"tags": 2},
)


def test_a_missing_number_and_zero_stay_different():
    arrays = encode(pl.DataFrame({"price": [None, 0.0, float("nan"), float("inf")]}), [PRICE], FITTED)
    assert arrays.bucket_NF[:, 0].tolist() == [0, 1, 0, 0]
    assert arrays.value_NF[:, 0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_a_number_falls_into_its_quantile_bucket_and_keeps_its_signed_logarithm():
    arrays = encode(pl.DataFrame({"price": [0.5, 1.0, 2.5, 100.0]}), [PRICE], FITTED)
    assert arrays.bucket_NF[:, 0].tolist() == [1, 2, 3, 4]
    assert arrays.value_NF[:, 0] == pytest.approx([np.log(1.5), np.log(2), np.log(3.5), np.log(101)])


def test_a_number_beyond_those_of_training_counts_as_the_nearest_of_them():
    fitted = replace(FITTED, limits={"price": (-0.5, 4.7)})
    arrays = encode(pl.DataFrame({"price": [-10.0, -0.4, 1000.0, None]}), [PRICE], fitted)
    assert arrays.value_NF[:, 0] == pytest.approx([-0.5, -np.log(1.4), 4.7, 0.0])


def test_a_missing_category_an_unknown_one_and_a_known_one_have_three_kinds_of_row():
    arrays = encode(pl.DataFrame({"colour": [None, "violet", "blue", "red"]}), [COLOUR], FITTED)
    assert arrays.sparse_NS[:, 0].tolist() == [0, 1, 2, 3]


def test_a_bag_keeps_its_members_up_to_its_width_and_a_missing_bag_is_empty():
    arrays = encode(pl.DataFrame({"tags": [["b", "a", "b"], None, [], ["z"]]}), [TAGS], FITTED)
    assert arrays.bags[0].tolist() == [[3, 2], [0, 0], [0, 0], [1, 0]]


def test_an_embedding_of_the_wrong_width_or_with_infinity_counts_as_missing():
    frame = pl.DataFrame({"vector": [[1.0, 2.0], None, [1.0], [float("inf"), 0.0]]})
    vectors = encode(frame, [VECTOR], FITTED).embeddings[0]
    assert vectors[0].tolist() == [1.0, 2.0]
    assert np.isnan(vectors[1:]).all()


def test_an_item_seen_too_rarely_and_an_item_never_seen_share_identity_row_zero():
    assert FITTED.identity(np.array([10, 20, 30, 99])).tolist() == [1, 0, 2, 0]


def test_string_item_ids_work_like_numbers():
    known = np.array(["apple", "pear"])
    assert vocabularies.rows_of(np.array(["pear", "plum", "apple"]), known).tolist() == [1, -1, 0]


def test_a_vocabulary_survives_the_disk(tmp_path):
    vocabularies.save(FITTED, tmp_path / "v.json")
    loaded = vocabularies.load(tmp_path / "v.json")
    assert loaded.identity(np.array([30])).tolist() == [2]
    assert (loaded.categories, loaded.edges, loaded.scales) == (FITTED.categories, FITTED.edges, FITTED.scales)
    assert loaded.limits == FITTED.limits


def test_a_vocabulary_made_before_there_were_limits_is_read_as_it_was(tmp_path):
    vocabularies.save(FITTED, tmp_path / "v.json")
    fields = json.loads((tmp_path / "v.json").read_text())
    del fields["limits"]
    (tmp_path / "v.json").write_text(json.dumps(fields))
    assert vocabularies.load(tmp_path / "v.json").limits == {"price": (-5.0, 5.0)}


def test_the_limits_of_a_number_are_its_least_and_greatest_value_in_training(tmp_path):
    tables, signals = read(write_examples(tmp_path)), read_declared(tmp_path)
    wild = pl.when(split="train").then("age").otherwise(pl.lit(1e6, dtype=pl.Float32))
    moved = tables._replace(requests=tables.requests.with_columns(age=wild))
    fitted = fit_vocabulary(moved, signals, TokensConfig())
    assert fitted.limits == fit_vocabulary(tables, signals, TokensConfig()).limits
    [age] = [signal for signal in signals if signal.name == "age"]
    seen = encode(moved.requests, [age], fitted).value_NF[:, 0]
    is_train = (moved.requests["split"] == "train").to_numpy()
    assert seen[~is_train] == pytest.approx(seen[is_train].max())
    assert fitted.limits["age"] == pytest.approx((seen[is_train].min(), seen[is_train].max()))


def test_the_vocabulary_is_fitted_on_the_training_split_alone(tmp_path):
    tables = read(write_examples(tmp_path))
    poisoned = tables.requests.with_columns(
        country=pl.when(pl.col("split") == "train").then("country").otherwise(pl.lit("from the future"))
    )
    fitted = fit_vocabulary(tables._replace(requests=poisoned), read_declared(tmp_path), TokensConfig())
    assert fitted.categories["country"] == ["c0", "c1", "c2", "c3"]


def test_what_only_training_candidates_hold_is_known_too(tmp_path):
    tables, signals = read(write_examples(tmp_path)), read_declared(tmp_path)
    assert {signal.makers for signal in signals if signal.name in ("colour", "tags")} == {("history", "candidate")}
    members = [f"m{place}" for place in range(5)]
    shown = tables.candidates.join(tables.requests.select("request_id", "split"), on="request_id").with_columns(
        colour=pl.when(split="train").then(pl.lit("shown, never bought")).otherwise(pl.lit("from the future")),
        tags=pl.when(split="train").then(pl.lit(members)).otherwise("tags"),
    )
    before = fit_vocabulary(tables, signals, TokensConfig())
    fitted = fit_vocabulary(tables._replace(candidates=shown), signals, TokensConfig())
    assert fitted.categories["colour"] == sorted([*before.categories["colour"], "shown, never bought"])
    assert fitted.categories["tags"] == sorted([*members, *before.categories["tags"]])
    assert (before.bag_widths["tags"], fitted.bag_widths["tags"]) == (2, 5)


def test_a_declared_signal_that_no_table_holds_is_named(tmp_path):
    tables = read(write_examples(tmp_path))
    with pytest.raises(SchemaError, match="signal 'price' of view 'v' is in no table"):
        fit_vocabulary(tables._replace(candidates=tables.candidates.drop("price")), [PRICE], TokensConfig())


def test_the_gap_is_derived_beside_signals_of_any_other_name_and_its_own_is_reserved(tmp_path):
    tables = read(write_examples(tmp_path / "examples"))
    expected, found = with_gaps(tables), with_gaps(renamed(tables, age="seen", hour="at", spent="last")[0])
    for table in ("events", "requests"):
        assert getattr(found, table)["gap_hours"].equals(getattr(expected, table)["gap_hours"])
    assert found.requests["seen"].to_list() == tables.requests["age"].to_list()
    assert GAP_HOURS.name in DERIVED
