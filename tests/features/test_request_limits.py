"""What no client could ask for is refused before anything is trained on it."""

import polars as pl
import pytest

from lrm.errors import DataError, SchemaError
from lrm.features.feast_repo import declarations
from lrm.features.request_limits import require_askable, require_few_fields
from lrm.features.run import retrieve_features
from lrm.limits import MAX_BAG, MAX_FIELDS, MAX_KEY, MAX_TEXT, MIN_KEY
from lrm.schema import Signal
from lrm.serving.engine.request_checks import Fields, PredictRequest, problem
from tests.data_worlds import START
from tests.features.conftest import change, change_views

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

MOOD = Signal(name="mood", kind="bag", makers=("query",), entity="request", view="requests")
PLACE = Signal(name="place", kind="sparse", makers=("query",), entity="request", view="requests")
ROWS = {
    "an id at the limit": ({"user_id": "x" * MAX_TEXT}, ""),
    "an id beyond it": ({"user_id": "x" * (MAX_TEXT + 1)}, "'user_id' 'x{40}...' has 1,001 characters, at most 1,000"),
    "an id of other characters": ({"user_id": "👩" * MAX_TEXT}, ""),
    "a category at the limit": ({"place": "x" * MAX_TEXT}, ""),
    "a category beyond it": ({"place": "x" * (MAX_TEXT + 1)}, "'place' 'x{40}...' has 1,001 characters"),
    "a bag at the limit": ({"mood": ["x"] * MAX_BAG}, ""),
    "a bag beyond it": ({"mood": ["x"] * (MAX_BAG + 1)}, r"'mood' .* has 1,001 members, at most 1,000"),
    "a member beyond it": ({"mood": ["", "x" * (MAX_TEXT + 1)]}, "'mood' .* has 1,001 characters in a member"),
    "nothing": ({"place": None, "mood": None}, ""),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_is_refused_where_the_server_would_refuse_its_request(case, tmp_path):
    given, message = ROWS[case]
    row = {"user_id": "u", "place": "here", "mood": ["calm"]} | given
    types = {"user_id": pl.String, "place": pl.String, "mood": pl.List(pl.String)}
    table = pl.DataFrame([{"user_id": "u"}, row], schema=types)
    fields = Fields({"user_id": "string", "item_id": "string"}, (PLACE, MOOD), (), START)
    context = {name: row[name] for name in ("place", "mood")}
    refused = problem(PredictRequest("recommend", row["user_id"], context=context), fields, now=START)
    assert bool(refused) == bool(message)
    if message:
        with pytest.raises(DataError, match=f"requests.parquet, row 2: {message}"):
            require_askable(table, tmp_path / "requests.parquet", keys=["user_id"], signals=[PLACE, MOOD])
    else:
        require_askable(table, tmp_path / "requests.parquet", keys=["user_id"], signals=[PLACE, MOOD])


def test_all_limits_that_are_broken_are_named_and_the_rows_counted(tmp_path):
    long = "x" * (MAX_TEXT + 1)
    table = pl.DataFrame({"user_id": [long, "u", long], "place": ["here", long, "here"]})
    with pytest.raises(DataError) as error:
        require_askable(table, tmp_path / "requests.parquet", keys=["user_id"], signals=[PLACE])
    said = str(error.value)
    assert "row 1: 'user_id'" in said
    assert "as have 1 rows more" in said
    assert "row 2: 'place'" in said
    assert len(said) < 500


@pytest.mark.parametrize("key", [MIN_KEY, MAX_KEY, 0, -1])
def test_every_whole_number_that_a_table_can_hold_can_be_asked_for(key):
    fields = Fields({"user_id": "int64", "item_id": "int64"}, (), (), START)
    assert problem(PredictRequest("recommend", key, exclude=(key,)), fields, now=START) == ""
    for beyond in (MIN_KEY - 1, MAX_KEY + 1):
        assert "whole number of 64 bits" in problem(PredictRequest("recommend", beyond), fields, now=START)


def test_an_id_that_is_too_long_ends_the_first_step_and_names_its_row(data, tmp_path):
    for table in ("events", "requests", "users", "pairs", "candidates"):
        change(data, table, lambda frame: frame.with_columns(pl.col("user_id").cast(pl.String)))
    change_views(data, 'join_keys=["user_id"], value_type=ValueType.INT64', 'join_keys=["user_id"]')
    retrieve_features(data, data / "feature_repo", tmp_path / "examples")
    longer = pl.when(pl.col("user_id") == "3").then(pl.lit("3" * 1001)).otherwise("user_id").alias("user_id")
    change(data, "users", lambda users: users.with_columns(longer))
    with pytest.raises(DataError, match=r"users.parquet, row 3: 'user_id' '3{40}\.\.\.' has 1,001 characters, at most"):
        retrieve_features(data, data / "feature_repo", tmp_path / "examples")


def test_more_names_than_a_request_may_carry_are_refused(data):
    declared = declarations(data / "feature_repo", data)
    require_few_fields(declared)
    many = tuple(
        Signal(name=f"s{at}", kind="dense", makers=("query",), entity="request", view="requests")
        for at in range(MAX_FIELDS + 1)
    )
    views = tuple(view._replace(signals=many) if view.role == "requests" else view for view in declared.views)
    with pytest.raises(SchemaError, match=r"view of requests declares 201 signals: .* it takes 200"):
        require_few_fields(declared._replace(views=views))
