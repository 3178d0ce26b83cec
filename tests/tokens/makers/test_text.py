import numpy as np
import polars as pl
import pytest
import torch

from lrm.tokens.makers.text import DIGIT, MAX_POWER, MINUS, NULL, PAD, PLUS, POWER, UNKNOWN_WORD, TextMaker
from lrm.tokens.signals import encode
from tests.tokens.test_vocabulary import COLOUR, FITTED, PRICE, TAGS, VECTOR

NUMBERS = {
    0.0: (PLUS, 0, 0, 0, 0),
    12.5: (PLUS, 1, 2, 5, 1),
    -0.0306: (MINUS, 3, 0, 6, -2),
    9.996: (PLUS, 1, 0, 0, 1),
    147.0: (PLUS, 1, 4, 7, 2),
}


def maker(*signals) -> TextMaker:
    torch.manual_seed(0)
    return TextMaker(signals, FITTED, d_model=8)


def written(signals, frame: pl.DataFrame) -> list[list[int]]:
    made = maker(*signals)
    return made.write(encode(frame, signals, FITTED).take(np.arange(frame.height))).tolist()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_its_sign_three_digits_and_a_power_of_ten(number):
    sign, *digits, power = NUMBERS[number]
    [tokens] = written([PRICE], pl.DataFrame({"price": [number]}))
    name = maker(PRICE).name["price"]
    assert tokens == [name, sign, *(DIGIT + digit for digit in digits), POWER + MAX_POWER + power]


def test_a_missing_number_is_a_word_of_its_own_and_not_zero():
    [tokens] = written([PRICE], pl.DataFrame({"price": [None]}, schema={"price": pl.Float64}))
    assert tokens[1:] == [NULL, PAD, PAD, PAD, PAD]


def test_a_category_is_its_words_and_an_unknown_or_missing_one_says_so():
    word = maker(COLOUR).word
    tokens = written([COLOUR], pl.DataFrame({"colour": ["red", "violet", None]}))
    assert [row[1] for row in tokens] == [word["red"], UNKNOWN_WORD, NULL]


def test_a_bag_is_the_words_of_its_members():
    word = maker(TAGS).word
    tokens = written([TAGS], pl.DataFrame({"tags": [["b", "a"], ["a"]]}))
    assert [row[1:] for row in tokens] == [[word["b"], word["a"]], [word["a"], NULL]]


def test_a_vector_is_written_number_by_number():
    [tokens] = written([VECTOR], pl.DataFrame({"vector": [[0.0, -0.5]]}))
    assert [tokens[1], tokens[6]] == [PLUS, MINUS]
    assert len(tokens) == 1 + 2 * 5


def test_a_group_is_one_opening_token_and_then_its_signals_in_order_of_kind():
    made = maker(TAGS, PRICE, COLOUR)
    frame = pl.DataFrame({"price": [1.0, 2.0], "colour": ["red", "blue"], "tags": [["a"], None]})
    tokens = made(encode(frame, made.signals, FITTED).take(np.arange(2)))
    assert tokens.shape == (2, made.n_tokens, 8)
    assert made.n_tokens == 1 + 6 + 2 + 3
    assert torch.equal(tokens[:, 0], made.opening_D.expand(2, -1))
