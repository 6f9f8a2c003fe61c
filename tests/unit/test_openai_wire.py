"""What all endpoints share of JSON: a long list is dealt with item by item, and comes out the same."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.openai import wire
from claude_coded.openai.wire import encode, encode_list, field_of

SIGNS = 'a\x85\u2028\u2029\u00e9\u2014 "'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(SIGNS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(SIGNS), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=5))
def test_a_list_is_encoded_item_by_item_as_in_one_go(values: list[Any]) -> None:
    assert encode_list(values) == encode(values)


@given(JSON)
def test_a_long_field_is_decoded_as_a_short_one(value: Any) -> None:
    long = [value, "x" * wire.IN_ONE_GO]
    body = orjson.dumps({"a": value, "input": long, "b": 1})
    assert field_of(body, "input") == long
    assert field_of(body, "a") == value


def test_a_long_text_is_decoded_too() -> None:
    text = "[" * wire.IN_ONE_GO
    assert field_of(orjson.dumps({"input": text}), "input") == text
