from dataclasses import replace

import pytest

from lrm.errors import SchemaError
from lrm.schema import (
    AFTER_ACTION,
    KEYS,
    Signal,
    bag,
    dense,
    embedding,
    for_maker,
    in_use,
    read_signals,
    retired,
    sequence,
    signal_from_tags,
    sparse,
    write_signals,
)

AGE = {"name": "age", "kind": "dense", "makers": ("query",), "entity": "user", "view": "profile"}


def declared(tags: dict[str, str]) -> Signal:
    return signal_from_tags(name="s", view="v", description="d", tags=tags)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (
            dense("history,candidate", "item", minimum=0, maximum=9.5, max_null_rate=0.1),
            {"kind": "dense", "makers": ("history", "candidate"), "minimum": 0.0, "maximum": 9.5, "max_null_rate": 0.1},
        ),
        (sparse("query", "user", categories=["a", "b,c"]), {"kind": "sparse", "categories": ("a", "b,c")}),
        (sparse("query", "user", categories=[1, True, "x"]), {"categories": ("1", "true", "x")}),
        (bag("candidate", "item", categories=["x"]), {"kind": "bag", "makers": ("candidate",), "categories": ("x",)}),
        (sequence("query", "user"), {"kind": "bag", "makers": ("query",), "ordered": True}),
        (embedding("candidate", "item", dim=8), {"kind": "embedding", "dim": 8}),
        (dense("history", "pair", known=AFTER_ACTION), {"known": "after", "minimum": None, "max_null_rate": 1.0}),
    ],
)
def test_what_the_tags_say_is_what_the_signal_says(tags, expected):
    signal = declared(tags)
    assert {name: getattr(signal, name) for name in expected} == expected
    assert (signal.name, signal.view, signal.description) == ("s", "v", "d")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (dense("query", "user"), "a dense signal"),
        (sparse("query", "user"), "a sparse signal"),
        (bag("query", "user"), "a bag"),
        (sequence("query", "user"), "a sequence"),
        (embedding("query", "user", dim=8), "an embedding of 8 numbers"),
    ],
)
def test_the_form_of_a_value_has_words(tags, words):
    assert declared(tags).kind_in_words == words


def test_all_tags_are_text_because_the_feature_store_keeps_nothing_else():
    tags = dense("query", "user", minimum=1, max_null_rate=0.5) | sparse("query", "user", categories=["a"])
    assert all(isinstance(value, str) for value in tags.values())


@pytest.mark.parametrize("tag", ["kind", "maker", "entity"])
def test_a_missing_tag_is_named_with_what_to_write(tag):
    tags = dense("query", "user")
    del tags[tag]
    with pytest.raises(SchemaError, match=rf"signal 's' of view 'v' has no tag '{tag}'; write tags=dense\(...\)"):
        declared(tags)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"ordered": True}, r"only a bag can be ordered"),
        ({"kind": "number"}, r"kind 'number' is not one of \('dense', 'sparse', 'bag', 'embedding'\)"),
        ({"makers": ("query", "prompt")}, r"makers \('query', 'prompt'\) are not among"),
        ({"makers": ()}, r"makers \(\) are not among"),
        ({"entity": "shop"}, "entity 'shop' is not one of"),
        ({"known": "later"}, "known 'later' is neither 'request' nor 'after'"),
        ({"known": "after"}, "it is known only after the action, so only the history maker may read it"),
        ({"kind": "embedding"}, "an embedding needs dim"),
        ({"name": "user_id"}, "its name is reserved for a key column"),
        ({"max_null_rate": 60.0}, "max_null_rate 60 is no share, 0 to 1"),
        ({"max_null_rate": -1.0}, "max_null_rate -1 is no share, 0 to 1"),
        ({"minimum": 10.0, "maximum": 1.0}, r"minimum 10\.0 is above maximum 1\.0"),
        ({"name": "Item_ID"}, "its name is reserved for a key column"),
        ({"name": "_seen"}, "a name with an underscore in front is reserved"),
    ],
)
def test_a_signal_that_cannot_be_is_refused_with_where_to_mend_it(wrong, problem):
    with pytest.raises(SchemaError, match=rf"of view 'profile': {problem}.*mend its tags in views.py"):
        Signal(**(AGE | wrong))


def test_a_number_of_a_tag_that_is_none_is_named():
    with pytest.raises(SchemaError, match=r"signal 's' of view 'v': max_null_rate is no number, got 'lots'; mend"):
        declared(dense("query", "user") | {"max_null_rate": "lots"})


def test_categories_are_several_values_of_the_kinds_a_column_may_hold():
    with pytest.raises(SchemaError, match=r"categories='ios' is one string; write a tuple of them, as \('ios',\)"):
        sparse("query", "user", categories="ios")
    with pytest.raises(SchemaError, match=r"a category is a string, a whole number or a boolean, got 0\.5"):
        bag("query", "user", categories=[0.5])


def test_signals_survive_their_file_unchanged(tmp_path):
    signals = (
        declared(sparse("query", "user", categories=["a", "b"])),
        declared(dense("history", "item", maximum=3)),
        declared(embedding("candidate", "item", dim=4)),
        declared(retired(dense("query", "user"))),
    )
    write_signals(signals, tmp_path / "signals.json")
    assert read_signals(tmp_path / "signals.json") == signals


def test_a_model_reads_a_signal_the_same_whatever_is_normal_of_it_and_even_if_it_is_retired():
    before = declared(dense("query", "user", minimum=0))
    now = replace(declared(retired(dense("query", "user", maximum=9, max_null_rate=0.1))), description="other words")
    assert now.as_read == before.as_read
    assert now.as_read != declared(dense("candidate", "user", minimum=0)).as_read
    assert in_use((before, now)) == (before,)


def test_what_is_retired_must_be_tags():
    with pytest.raises(SchemaError, match=r"retired takes the tags of a signal, as .*, got 'price'"):
        retired("price")


def test_a_maker_gets_its_signals_in_declared_order():
    both, one = Signal(**(AGE | {"makers": ("query", "candidate")})), Signal(**(AGE | {"name": "b"}))
    assert for_maker((both, one), "query") == (both, one)
    assert for_maker((both, one), "candidate") == (both,)
    assert for_maker((both, one), "history") == ()


def test_every_key_column_is_reserved():
    assert {"user_id", "item_id", "event_time", "created_time", "split", "label"} <= KEYS
