"""The split modes that need no image: none, batch, range; and what every mode refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.tasks.splitmerge.split import split

KNOWN = "none, tile, batch, window, lines, range, candidates"
FILE = {"path": "a.jpg", "cid": "bafy1", "size": 3, "media_type": "image/jpeg"}
LINK = {"cid": "bafy1", "size": 3, "media_type": "image/jpeg"}


@pytest.mark.parametrize("settings", [None, {}, {"mode": None}, {"mode": "none"}])
def test_without_a_mode_the_whole_input_is_one_shard_with_its_files_as_links(folders, settings):
    task = {"split": settings, "input": {"image_url": FILE, "nested": [FILE], "path": "not a file"}}
    expected = {"image_url": LINK, "nested": [LINK], "path": "not a file"}
    assert folders.run(split, task) == {"shards": [expected]}


def test_batch_gives_each_shard_contiguous_items_and_the_rest_of_the_input(folders):
    task = {"split": {"mode": "batch"}, "shard_count": 2, "input": {"items": [FILE, "b", 3], "image_url": FILE}}
    assert folders.run(split, task) == {
        "shards": [{"items": [LINK], "image_url": LINK}, {"items": ["b", 3], "image_url": LINK}]
    }


def test_batch_takes_another_key_when_told(folders):
    task = {"split": {"mode": "batch", "key": "photos"}, "input": {"photos": [1, 2]}}
    assert folders.run(split, task) == {"shards": [{"items": [1]}, {"items": [2]}]}


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-7, 7).filter(bool), st.integers(1, 20), st.data())
def test_range_shards_hold_every_number_once_in_order(make_folders, start, stop, step, shard_count, data):
    numbers = range(start, stop, step)
    folders = make_folders()
    task = {
        "split": {"mode": "range"},
        "shard_count": shard_count,
        "input": {"range": {"start": start, "stop": stop, "step": step}},
    }
    if not numbers:
        assert folders.refusal(split, task) == (
            f"input.range: no number lies from {start} to {stop} in steps of {step}"
        )
        return
    shards = [shard["range"] for shard in folders.run(split, task)["shards"]]
    assert [n for s in shards for n in range(s["start"], s["stop"], s["step"])] == list(numbers)
    assert len(shards) == min(shard_count, len(numbers))
    assert shards[-1]["stop"] in range(min(start, stop), max(start, stop) + 1)


def test_a_range_of_astronomic_length_costs_nothing(folders):
    task = {"split": {"mode": "range"}, "shard_count": 3, "input": {"range": {"stop": 9 * 10**15}}}
    shards = folders.run(split, task)["shards"]
    assert [s["range"]["start"] for s in shards] == [0, 3 * 10**15, 6 * 10**15]
    assert shards[-1]["range"] == {"start": 6 * 10**15, "stop": 9 * 10**15, "step": 1}


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({}, "input: expected an object, got null"),
        ({"split": 3, "input": {}}, "split: expected an object, got 3"),
        (
            {"split": {"mode": "windows"}, "input": {}},
            f'split.mode: "windows" is not one of {KNOWN}',
        ),
        ({"split": {"mode": ["tile"]}, "input": {}}, f"split.mode: a list is not one of {KNOWN}"),
        ({"shard_count": 0, "input": {}}, "shard_count: must be at least 1, got 0"),
        ({"shard_count": True, "input": {}}, "shard_count: expected an integer, got true"),
        ({"max_shards": -1, "input": {}}, "max_shards: must be at least 1, got -1"),
    ],
)
def test_settings_that_make_no_sense(folders, task, sentence):
    assert folders.refusal(split, task) == sentence


@pytest.mark.parametrize(
    ("mode", "job_input", "sentence"),
    [
        ("batch", {}, "input.items: is missing; it is what the job asks to split"),
        ("batch", {"items": "abc"}, 'input.items: expected a list, got "abc"'),
        ("batch", {"items": []}, "input.items: the list is empty"),
        ("range", {"range": 5}, "input.range: expected an object with start, stop and step, got 5"),
        ("range", {"range": {"start": 1}}, "input.range.stop: is missing"),
        ("range", {"range": {"stop": 1.5}}, "input.range.stop: expected an integer, got 1.5"),
        ("range", {"range": {"stop": 2**53}}, f"input.range.stop: must be at most {2**53 - 1}, got {2**53}"),
        ("range", {"range": {"stop": 9, "step": 0}}, "input.range.step: must not be 0"),
        ("range", {"range": {"stop": 9, "end": 0}}, "input.range: 'end' is not one of start, stop, step"),
        ("range", {"range": {"stop": 0}}, "input.range: no number lies from 0 to 0 in steps of 1"),
        ("tile", {"image_url": "a.jpg"}, 'input.image_url: expected a file, got "a.jpg"'),
        ("tile", {"image_url": FILE}, "input.image_url: no file 'a.jpg' came with the task"),
        (
            "tile",
            {"image_url": {"path": "../input/../../x"}},
            "input.image_url: no file '../input/../../x' came with the task",
        ),
    ],
)
def test_inputs_that_cannot_be_split(folders, mode, job_input, sentence):
    assert folders.refusal(split, {"split": {"mode": mode}, "input": job_input}) == sentence


def test_a_key_that_the_shards_need_must_be_free(folders):
    task = {"split": {"mode": "batch", "key": "photos"}, "input": {"photos": [1], "items": [2]}}
    assert folders.refusal(split, task) == "input.items: the split of 'photos' needs this key for the shards"
