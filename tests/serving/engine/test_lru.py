"""A bounded memory of what was used last."""

from lrm.serving.engine.lru import Lru


def test_what_was_unused_for_longest_goes_first():
    held = Lru(10, len)
    held.put("a", "1234")
    held.put("b", "1234")
    assert held.get("a") == "1234"
    held.put("c", "1234")
    assert (held.get("a"), held.get("b"), held.get("c")) == ("1234", None, "1234")
    assert (held.n_bytes, len(held)) == (8, 2)


def test_a_value_put_again_counts_once():
    held = Lru(10, len)
    held.put("a", "1234")
    held.put("a", "12")
    assert (held.get("a"), held.n_bytes) == ("12", 2)
    held.drop("a")
    held.drop("a")
    assert (held.get("a"), held.n_bytes) == (None, 0)


def test_what_is_larger_than_the_bound_is_not_held():
    held = Lru(3, len)
    held.put("a", "12")
    held.put("a", "1234")
    assert (held.get("a"), held.n_bytes) == (None, 0)
