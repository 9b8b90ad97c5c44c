import contextlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshnode.jobs import document
from meshnode.jobs.canonical import DEPTH_MAX
from meshnode.jobs.document import SIZE_MAX, parse_document, read_document
from meshnode.jobs.errors import InvalidFile

# JSON escapes what lies beyond as two surrogates, which YAML does not take.
NAMES = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=8)
VALUES = st.dictionaries(
    NAMES,
    st.recursive(
        st.none() | st.booleans() | st.integers(-999, 999) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def _either_parser(request, monkeypatch):
    """PyYAML may come without its C parser; both must read the same."""
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, request.param))


def refusal(data, name="job.yaml"):
    with pytest.raises(InvalidFile) as caught:
        parse_document(data if isinstance(data, bytes) else data.encode(), name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(VALUES)
def test_json_reads_the_same_as_yaml_and_as_json(value):
    data = json.dumps(value).encode()
    assert parse_document(data, "job.json") == value
    assert parse_document(data, "job.yaml") == value


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
@pytest.mark.parametrize("name", ["job.yaml", "job.json"])
def test_any_bytes_are_a_mapping_or_an_invalid_file(name, data):
    with contextlib.suppress(InvalidFile):
        assert isinstance(parse_document(data, name), dict)


@given(st.lists(st.sampled_from([*"&*!|>-?:{}[],'\"#% \n\tab1~.", "a: ", "- ", "---\n", "<<: ", "\\ud800"])))
def test_any_text_made_of_yaml_signs_is_a_mapping_or_an_invalid_file(parts):
    with contextlib.suppress(InvalidFile):
        assert isinstance(parse_document("".join(parts).encode(), "job.yaml"), dict)


@pytest.mark.usefixtures("_either_parser")
def test_yaml_values_are_those_of_the_core_schema():
    text = """
    country: no
    time: 12:30
    day: 2026-11-23
    octal: 0o17
    hex: 0xff
    zeros: 007
    float: 1e3
    dot: .5
    nothing: ~
    empty:
    quoted: "1"
    underscore: 1_000
    block: |
      two
      lines
    list: [true, False, null]
    """
    assert parse_document(text.encode(), "job.yaml") == {
        "country": "no",
        "time": "12:30",
        "day": "2026-11-23",
        "octal": 15,
        "hex": 255,
        "zeros": 7,
        "float": 1000.0,
        "dot": 0.5,
        "nothing": None,
        "empty": None,
        "quoted": "1",
        "underscore": "1_000",
        "block": "two\nlines\n",
        "list": [True, False, None],
    }


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "job.yaml: is empty, expected a mapping of keys to values"),
        ("# nothing\n", "job.yaml: is empty, expected a mapping of keys to values"),
        ("- a\n", "job.yaml: expected a mapping of keys to values, got a list"),
        ("just words", "job.yaml: expected a mapping of keys to values, got 'just words'"),
        ("a: &x 1\nb: *x\n", "job.yaml: a: anchors and aliases are not allowed (line 1)"),
        ("a: *x\n", "job.yaml: a: anchors and aliases are not allowed (line 1)"),
        ("a: !!python/name:os.system x\n", "job.yaml: a: the tag 'tag:yaml.org,2002:python/name:os.system' is"),
        ("a: 1\nb: 2\na: 3\n", "job.yaml: the key 'a' appears twice (line 3)"),
        ("in: {a: [{k: 1, k: 2}]}\n", "job.yaml: in.a[0]: the key 'k' appears twice (line 1)"),
        ("1: a\n", "job.yaml: the key '1' is not a text; quote it (line 1)"),
        ("[a]: b\n", "job.yaml: a key must be a text (line 1)"),
        ("a: 1\n---\nb: 2\n", "job.yaml: holds a second document (line 2), expected one"),
        ("a: .nan\n", "job.yaml: a: .nan is not a number that JSON can carry"),
        ("a: 1e999\n", "job.yaml: a: Infinity is not a JSON number"),
        ("a: 99999999999999999999\n", "job.yaml: a: the integer is beyond ±(2^53 - 1)"),
        ("a: " + "1" * 100_000, "job.yaml: a: the integer is beyond ±(2^53 - 1)"),
        ("a: [1\n", "job.yaml: not YAML: "),
        ("a: b: c\n", "job.yaml: not YAML: mapping values are not allowed"),
        ("a: \x00\n", "job.yaml: not YAML: "),
        ("a: " + "[" * 20_000, f"job.yaml: nested more than {DEPTH_MAX} levels deep (line 1)"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_in_a_sentence(text, sentence):
    assert refusal(text).startswith(sentence)


def test_an_alias_bomb_is_refused():
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert refusal("\n".join(lines)) == "job.yaml: a0: anchors and aliases are not allowed (line 1)"


def test_bytes_that_are_not_text_and_files_too_large_are_refused():
    assert refusal(b"a: \xff\n") == "job.yaml: not UTF-8 (byte 3)"
    assert refusal(b"#" * (SIZE_MAX + 1)) == "job.yaml: is larger than 1048576 bytes"
    assert refusal("[]", "job.json") == "job.json: expected a mapping of keys to values, got a list"
    assert refusal('{"a": 1, "a": 2}', "job.json") == "job.json: the key 'a' appears twice"


def test_a_file_that_is_not_there_or_no_file_is_said(tmp_path):
    with pytest.raises(InvalidFile, match=r"gone\.yaml: no such file$"):
        read_document(tmp_path / "gone.yaml")
    with pytest.raises(InvalidFile, match=r": is not a regular file$"):
        read_document(tmp_path)
