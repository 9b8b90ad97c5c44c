import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.jobs.canonical import DEPTH_MAX, InvalidJson, canonical_json, loads_strict

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@given(VALUES)
def test_what_is_read_strictly_has_canonical_bytes_that_read_back_the_same(value):
    data = canonical_json(value)
    assert loads_strict(data) == value
    assert canonical_json(loads_strict(json.dumps(value, indent=1).encode())) == data


def test_keys_are_sorted_and_numbers_written_as_rfc_8785_says():
    assert canonical_json({"b": 1.0, "a": [1e21, 0.1, -0.0], "€": "\n"}) == (
        '{"a":[1e+21,0.1,0],"b":1,"€":"\\n"}'.encode()
    )


@given(st.binary() | st.text().map(str.encode) | VALUES.map(lambda value: json.dumps(value).encode()[:-1]))
def test_any_bytes_are_parsed_or_refused_as_invalid_json_and_nothing_else(data):
    with contextlib.suppress(InvalidJson):
        canonical_json(loads_strict(data))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": [1, NaN]}', "a[1]: NaN is not a JSON number"),
        ('{"a": -Infinity}', "a: -Infinity is not a JSON number"),
        ('[{"x": 1e999}]', "[0].x: Infinity is not a JSON number"),
        ('{"n": 9007199254740993}', "n: the integer is beyond ±(2^53 - 1), so it would not stay exact"),
        ('{"n": ' + "9" * 10_000 + "}", "n: the integer is beyond ±(2^53 - 1), so it would not stay exact"),
        ('{"a": {"k": 1, "k": 2}}', "a: the key 'k' appears twice"),
        ('{"k": 1, "k": 2}', "the key 'k' appears twice"),
        ('["\\ud800"]', "[0]: the text holds half a surrogate pair, which is no character"),
        ('{"a": {"\\udfff": 1}}', "a: a key holds half a surrogate pair, which is no character"),
        ("[1,]", "not JSON: "),
        ("", "not JSON: Expecting value (line 1, column 1)"),
        ("[" * 100_000, f"nested more than {DEPTH_MAX} levels deep"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), f"{'[0]' * DEPTH_MAX}: nested more than"),
    ],
)
def test_what_has_no_canonical_bytes_is_refused_with_its_place(text, sentence):
    with pytest.raises(InvalidJson) as caught:
        loads_strict(text.encode())
    assert str(caught.value).startswith(sentence)


@given(st.integers(2**53, 10**22) | st.integers(-(10**22), -(2**53)))
def test_a_large_integer_is_the_float_that_is_written_so_or_refused(number):
    try:
        value = loads_strict(str(number).encode())
    except InvalidJson:
        assert canonical_json(float(number)) != str(number).encode()
    else:
        assert isinstance(value, float)
        assert canonical_json(value) == str(number).encode()


def test_large_floats_survive_their_canonical_form():
    """RFC 8785 writes them as integers; an output is read again when shards are merged and receipts checked."""
    assert canonical_json([6.02e20, 2.0**53]) == b"[602000000000000000000,9007199254740992]"
    assert loads_strict(b"[602000000000000000000,9007199254740992]") == [6.02e20, 2.0**53]


def test_size_and_encoding_are_bounded():
    with pytest.raises(InvalidJson, match=r"^11 bytes are more than the 10 that may be read$"):
        loads_strict(b'"' + b"x" * 9 + b'"', size_max=10)
    with pytest.raises(InvalidJson, match=r"^not UTF-8 \(byte 1\)$"):
        loads_strict(b'"\xff"')


@pytest.mark.parametrize("value", [{"a": {1: 2}}, [b"bytes"], [math.nan], {"a": 2**53}, [{1, 2}]])
def test_values_that_are_not_json_are_not_written(value):
    with pytest.raises(InvalidJson):
        canonical_json(value)


def test_the_deepest_value_allowed_is_read_and_written():
    data = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    assert canonical_json(loads_strict(data)) == data
