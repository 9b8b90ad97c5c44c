"""Lines and windows: of a text in the input, of a file, and the same shards from both."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.tasks.splitmerge import sequences
from meshnode.tasks.splitmerge.split import MODES, split

KEYS = [
    "text",
    "text_url",
    "tokens",
    "items",
    "range",
    "image_url",
    "lines",
    "candidate",
    "path",
    "start",
    "stop",
    "step",
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
LINES = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=9), min_size=1)


def shards_of(folders, task):
    """Run the split; return the shards, in whichever way they were listed."""
    listed = folders.run(split, task)["shards"]
    if isinstance(listed, list):
        return listed
    return [json.loads(line) for line in (folders.output / listed["path"]).read_text().splitlines()]


def as_file(folders, text):
    return {"text_url": folders.add("a.txt", text.encode())}


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.integers(1, 12))
def test_every_line_is_in_one_shard_in_order_without_its_end(make_folders, lines, end, ended, from_file, shard_count):
    folders = make_folders()
    if not ended and not lines[-1]:
        lines.append("last")  # else what looks like a line is the end of the one before
    text = end.join(lines) + (end if ended else "")
    job_input = as_file(folders, text) if from_file else {"text": text}
    shards = shards_of(folders, {"split": {"mode": "lines"}, "shard_count": shard_count, "input": job_input})
    assert [line for shard in shards for line in shard["lines"]] == lines
    sizes = [len(shard["lines"]) for shard in shards]
    assert len(sizes) == min(shard_count, len(lines))
    assert max(sizes) - min(sizes) <= 1


def test_a_large_share_of_lines_is_a_file(folders, monkeypatch):
    monkeypatch.setattr(sequences, "SHARE_BYTES_MAX", 20)
    text = "short\nshort\n" + "x" * 30 + "\né\n"
    shards = shards_of(folders, {"split": {"mode": "lines"}, "shard_count": 2, "input": as_file(folders, text)})
    assert shards == [{"lines": ["short", "short"]}, {"lines": {"path": "lines/000001.txt"}}]
    assert (folders.output / "lines/000001.txt").read_text() == "x" * 30 + "\né\n"


def test_a_million_lines_become_shards_that_are_listed_in_a_file(folders):
    text = "".join(f"{number}\n" for number in range(300))
    task = {"split": {"mode": "lines"}, "input": {**as_file(folders, text), "lang": "en"}}
    assert folders.run(split, task) == {"shards": {"path": "shards.jsonl"}}
    assert shards_of(folders, task)[299] == {"lang": "en", "lines": ["299"]}


@given(TEXT.filter(bool), st.integers(1, 20), st.integers(1, 20), st.integers(1, 8), st.booleans(), st.integers(1, 9))
def test_windows_cover_the_text_and_each_is_a_stride_further(
    make_folders, text, size, stride, shard_count, from_file, piece
):
    folders = make_folders()
    stride = min(stride, size)
    task = {
        "split": {"mode": "window", "window_size": size, "stride": stride},
        "shard_count": shard_count,
        "input": as_file(folders, text) if from_file else {"text": text},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "_PIECE_BYTES", piece)
        shards = shards_of(folders, task)
    windows = [window for shard in shards for window in shard["windows"]]
    for index, window in enumerate(windows):
        assert window["start"] == index * stride
        assert window["end"] == min(window["start"] + size, len(text))
        assert window["text"] == text[window["start"] : window["end"]]
    assert windows[-1]["end"] == len(text)
    assert all(window["end"] < len(text) for window in windows[:-1])
    assert "".join(w["text"][:stride] for w in windows[:-1]) + windows[-1]["text"] == text
    sizes = [len(shard["windows"]) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 50_000), min_size=1), st.integers(1, 9), st.integers(1, 4))
def test_windows_over_tokens(make_folders, tokens, size, shard_count):
    task = {"split": {"mode": "window", "window_size": size}, "shard_count": shard_count, "input": {"tokens": tokens}}
    windows = [window for shard in shards_of(make_folders(), task) for window in shard["windows"]]
    assert [token for window in windows for token in window["tokens"]] == tokens


@pytest.mark.parametrize(
    ("split_settings", "job_input", "sentence"),
    [
        ({"mode": "lines"}, {}, "input.text: is missing, and so is text_url; it is what the job asks to split"),
        ({"mode": "lines"}, {"text": ""}, "input.text: the text is empty"),
        ({"mode": "lines"}, {"text": ["a"]}, "input.text: expected a file, got a list"),
        (
            {"mode": "lines"},
            {"text": "a", "lines": 1},
            "input.lines: the split of 'text' needs this key for the shards",
        ),
        ({"mode": "lines", "key": 5}, {"text": "a"}, "split.key: expected a name, got 5"),
        (
            {"mode": "window", "window_size": 3, "stride": 4},
            {"text": "a"},
            "split.stride: 4 is more than window_size, 3",
        ),
        ({"mode": "window", "window_size": 2**21}, {"text": "a"}, "split.window_size: must be at most 1048576, got"),
        ({"mode": "window"}, {"tokens": []}, "input.tokens: is empty"),
        ({"mode": "window"}, {"tokens": 3}, "input.tokens: expected a text, a list of tokens or a file, got 3"),
        ({"mode": "window"}, {}, "input.tokens: is missing, and so is text, and so is text_url; "),
        ({"mode": "candidates"}, {}, "shard_count: is missing; it says how many candidates there are"),
    ],
)
def test_sequences_that_cannot_be_split(folders, split_settings, job_input, sentence):
    assert folders.refusal(split, {"split": split_settings, "input": job_input}).startswith(sentence)


@pytest.mark.parametrize("mode", ["lines", "window"])
def test_a_file_that_is_no_text_is_refused(folders, mode):
    file = folders.add("a.txt", b"fine\n\xff\xfe\n")
    what = "line 2 is not UTF-8" if mode == "lines" else "the text is not UTF-8"
    task = {"split": {"mode": mode}, "input": {"text_url": file}}
    assert folders.refusal(split, task) == f"input.text_url: {what}"


def test_a_line_without_end_is_refused(folders, monkeypatch):
    monkeypatch.setattr(sequences, "LINE_BYTES_MAX", 5)
    task = {"split": {"mode": "lines"}, "input": as_file(folders, "12345\r\n123456\n")}
    assert folders.refusal(split, task) == "input.text_url: line 2 has more than 5 bytes"


def test_windows_that_no_input_could_hold_are_refused(folders, monkeypatch):
    monkeypatch.setattr(sequences, "WINDOWS_MAX", 50)
    task = {"split": {"mode": "window", "window_size": 10}, "shard_count": 1, "input": {"text": "x" * 100}}
    assert folders.refusal(split, task) == (
        "input.text: 1 shards would get more than 50 characters each; ask for more shards"
    )


@given(st.integers(1, 40), st.integers(0, 2**53 - 100))
def test_candidates_are_the_same_input_each_with_its_own_seed(make_folders, count, seed):
    task = {"split": {"mode": "candidates", "seed": seed}, "shard_count": count, "input": {"prompt": "p"}}
    shards = shards_of(make_folders(), task)
    assert shards == [{"prompt": "p", "candidate": {"index": i, "seed": seed + i}} for i in range(count)]


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(sorted(MODES)), st.dictionaries(st.sampled_from(KEYS), _ANY), st.integers(1, 5) | st.none(), _ANY
)
def test_whatever_the_input_is_it_is_split_or_refused_in_one_line(make_folders, mode, job_input, shard_count, option):
    how = {"mode": mode, **dict.fromkeys(("key", "tile_size", "overlap", "window_size", "stride", "seed"), option)}
    make_folders().attempt(split, {"split": how, "shard_count": shard_count, "input": job_input})
