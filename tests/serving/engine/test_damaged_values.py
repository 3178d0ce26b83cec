"""One stored value that was damaged is one user's missing value, whatever became of its bytes."""

import random
import sqlite3
from contextlib import closing
from datetime import timedelta

import polars as pl
import pytest

from lrm.errors import DamagedError
from lrm.features.feast_repo import Kept
from lrm.schema import Signal
from lrm.serving.engine.damaged_values import as_declared, fitting, packed, read_each, unpacked
from lrm.serving.engine.event_ingest import take_events
from lrm.serving.engine.predict import predict
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, Event, PredictRequest
from lrm.serving.engine.session import open_session
from tests.serving.conftest import copied
from tests.serving.shop import AS_OF

TABLE = pl.DataFrame({"item_id": [1, 2], "title": ["one", None]})


def flipped(value):
    """The value with each byte flipped in turn."""
    for place in range(len(value)):
        yield value[:place] + bytes([value[place] ^ 0xFF]) + value[place + 1 :]


def damaged(value, *, every):
    """Some of its bytes flipped, one at a time; cut short; and bytes that never were a value."""
    chance = random.Random(0)
    yield from list(flipped(value))[::every]
    yield from (value[:length] for length in range(0, len(value), every))
    yield from (chance.randbytes(len(value)) for _ in range(5))
    yield value + b"\0"


def test_what_was_packed_comes_back_and_nothing_else_is_ever_parsed():
    value = packed(TABLE)
    assert unpacked(value).equals(TABLE)
    for other in [*flipped(value), *damaged(value, every=1), "text", 7, None, b""]:
        with pytest.raises(DamagedError, match="not what was written"):
            unpacked(other)


def test_a_column_that_cannot_be_made_of_its_kind_is_null_and_the_others_stay():
    table = pl.DataFrame({"a": [[1.0], [2.0]], "b": [1, 2], "c": ["x", "3"]})
    wanted = {"a": pl.Float32(), "b": pl.String(), "c": pl.Int64(), "d": pl.Float32()}
    assert as_declared(table, wanted).to_dict(as_series=False) == {
        "a": [None, None],
        "b": ["1", "2"],
        "c": [None, 3],
        "d": [None, None],
    }


@pytest.mark.parametrize("bad", [set(), {0}, {3, 4}, {0, 1, 2, 3, 4, 5, 6}])
def test_each_key_whose_value_cannot_be_parsed_is_found_and_no_other(bad):
    nothing = Kept((None,), 0.0)

    def read(keys):
        if bad & set(keys):
            raise DamagedError("one of them")
        return [Kept((key,), 1.0) for key in keys]

    found = read_each(read, list(range(7)), nothing)
    assert [one.is_damaged for one in found] == [key in bad for key in range(7)]
    assert [one.values[0] for one in found] == [None if key in bad else key for key in range(7)]


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("dense", 1.5, True),
        ("dense", True, True),
        ("dense", float("nan"), True),
        ("dense", float("inf"), False),
        ("dense", 1e39, False),
        ("dense", "1.5", False),
        ("dense", b"1", False),
        ("sparse", "red", True),
        ("sparse", 7, True),
        ("sparse", b"red", False),
        ("sparse", ["red"], False),
        ("bag", ["red", None], True),
        ("bag", [b"red"], False),
        ("bag", "red", False),
        ("embedding", [0.1, 0.2], True),
        ("embedding", [0.1], False),
        ("embedding", [0.1, "b"], False),
        ("embedding", 0.1, False),
        ("embedding", None, True),
    ],
)
def test_a_value_that_is_not_of_its_signals_kind_is_null(kind, value, fits):
    signal = Signal(
        name="s", view="v", kind=kind, makers=("query",), entity="user", dim=2 if kind == "embedding" else None
    )
    kept = fitting(Kept((value,), 1.0), [signal])
    assert (kept.is_damaged, kept.values[0] is value) == (not fits, fits)


@pytest.fixture
def session(world, tmp_path):
    """Of a copy of the release, whose stores will be damaged; users 1 and 2 have new events."""
    session = open_session(copied(world, tmp_path / "release"))
    take_events(session, [[Event(user, 101, AS_OF + timedelta(hours=1))] for user in (1, 2)])
    return session


def answers(session, *, users=(1, 2, 3)):
    """To one batch, with nothing remembered."""
    session.user_states.clear()
    session.features.held.clear()
    one, two, three = users
    scored = PredictRequest(SCORE, three, None, {}, ({"item_id": 104},))
    return predict(session, [PredictRequest(RECOMMEND, one), PredictRequest(RECOMMEND, two), scored])


def each_damage(session, path, table, where, column, *, every=97):
    """The answers after each damage to one stored value."""
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        ((row, value),) = store.execute(f'SELECT rowid, {column} FROM "{table}" WHERE {where}').fetchall()
        for other in damaged(value, every=every):
            store.execute(f'UPDATE "{table}" SET {column} = ? WHERE rowid = ?', (other, row))
            yield answers(session)


def entity_key(**keys):
    """As the feature store writes it."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    values = [Value(int64_val=value) for value in keys.values()]
    return serialize_entity_key(EntityKey(join_keys=list(keys), entity_values=values), 3)


def is_of(**keys):
    """Finds the rows of an entity."""
    return f"entity_key = x'{entity_key(**keys).hex()}'"


def test_a_damaged_history_of_the_release_is_that_users_alone(session):
    sound = answers(session)
    assert not sound[0]["flags"]["damaged"]
    path = session.release.folder / "history.sqlite"
    with closing(sqlite3.connect(path)) as store:  # a key that is no row number: a table with one
        store.execute("CREATE TABLE copied AS SELECT * FROM history")
        store.execute("DROP TABLE history")
        store.execute("ALTER TABLE copied RENAME TO history")
        store.commit()
    writable = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    session = session._replace(histories=session.histories._replace(packed=writable))
    assert answers(session) == sound
    for mine, *others in each_damage(session, path, "history", "user_id = 1", "events"):
        assert others == sound[1:]
        assert (mine["flags"]["damaged"], mine["flags"]["unknown_user"], len(mine["items"])) == (True, False, 10)
    writable.close()


def test_a_file_of_histories_that_is_damaged_anywhere_ends_no_answer(session):
    path = session.release.folder / "history.sqlite"
    whole = path.read_bytes()
    for content in list(flipped(whole))[:: len(whole) // 25]:
        path.write_bytes(content)
        packed_ = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        assert len(answers(session._replace(histories=session.histories._replace(packed=packed_)))) == 3
        packed_.close()


def test_damaged_new_events_are_that_users_alone_and_the_next_push_overwrites_them(session):
    sound = answers(session)
    path, user = session.release.folder.parent / "events" / "online.db", is_of(user_id=1)
    for mine, *others in each_damage(session, path, "shop_fresh_events", user, "value", every=41):
        assert others == sound[1:]
        assert mine["flags"]["damaged"]
        assert not mine["flags"]["empty_history"]  # what is packed in the release is there
    assert take_events(session, [[Event(1, 101, AS_OF + timedelta(hours=1))]]) == [1]
    assert answers(session) == sound


@pytest.mark.parametrize("signal", ["age", "country"])
def test_a_damaged_signal_is_missing_for_that_user_alone(session, signal):
    sound = answers(session)
    where = f"{is_of(user_id=1)} AND feature_name = '{signal}'"
    path = session.release.folder / "online" / "online.db"
    seen = set()
    for mine, *others in each_damage(session, path, "shop_users", where, "value", every=1):
        assert others == sound[1:]
        assert len(mine["items"]) == 10
        seen.add((signal in mine["flags"]["missing"], mine["flags"]["damaged"]))
    assert (True, True) in seen  # what still parses as a value of its kind cannot be told


@pytest.mark.parametrize("signal", ["title", "tags", "vector"])
def test_a_damaged_signal_of_an_item_ends_no_answer(session, signal):
    where = f"{is_of(item_id=104)} AND feature_name = '{signal}'"
    path = session.release.folder / "online" / "online.db"
    sound = answers(session)
    for *others, scored in each_damage(session, path, "shop_items", where, "value", every=1):
        assert others == sound[:2]
        assert len(scored["items"]) == 1
