import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.tasks.splitmerge.merge import merge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def shard(folders, index, data):
    return {"index": index, "status": "success", "output": folders.add(f"shards/{index:06}.json", data)}


def concat(shards):
    return {"merge": {"strategy": "concat-json"}, "shards": shards}


@given(st.lists(JSON, max_size=6), st.randoms())
def test_concat_joins_lists_and_appends_the_rest_in_shard_order(make_folders, outputs, random):
    folders = make_folders()
    shards = [shard(folders, index, json.dumps(value).encode()) for index, value in enumerate(outputs)]
    random.shuffle(shards)
    expected = [item for value in outputs for item in (value if isinstance(value, list) else [value])]
    assert folders.run(merge, concat(shards)) == expected


def test_concat_leaves_out_failed_shards_and_copies_numbers_as_written(folders):
    shards = [shard(folders, 2, b" [ 1.50, 10 ] \n"), {"index": 1, "status": "failed"}, shard(folders, 0, b"[]")]
    folders.run(merge, concat(shards))
    assert (folders.output / "output.json").read_bytes() == b"[1.50,10]"


def test_none_is_a_list_of_links_with_null_for_a_failed_shard(folders):
    shards = [{"index": 1, "status": "failed"}, shard(folders, 0, b"\x00video")]
    assert folders.run(merge, {"merge": {"strategy": "none"}, "shards": shards}) == [
        {"cid": "cid-of-shards/000000.json", "size": 6, "media_type": "application/octet-stream"},
        None,
    ]


def test_an_output_that_is_not_json_is_named(folders):
    assert "so concat-json cannot join it" in merge_refusal(folders, [shard(folders, 3, b"\x89PNG")])
    assert merge_refusal(folders, [shard(folders, 4, b"[NaN]")]) == (
        "the output of shard 4 is not JSON, so concat-json cannot join it: NaN is not a JSON number"
    )


def merge_refusal(folders, shards):
    said = folders.refusal(merge, concat(shards))
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({}, "merge: expected an object, got null"),
        (
            {"merge": {"strategy": "average"}, "shards": []},
            'merge.strategy: "average" is not one of none, concat-json, concat, stitch, sum, mean, vote, best',
        ),
        (concat(None), "shards: expected a list, got null"),
        (concat([{}]), "shards[0].index: expected a shard's number, got null"),
        (concat([{"index": 1, "status": "failed"}] * 2), "shards[1].index: shard 1 is listed twice"),
        (concat([{"index": 1, "status": "success"}]), "shards[0].output: shard 1 succeeded but has no output"),
        (
            concat([{"index": 1, "status": "success", "output": {"path": "gone"}}]),
            "the output of shard 1: no file 'gone' came with the task",
        ),
    ],
)
def test_tasks_that_make_no_sense(folders, task, sentence):
    assert folders.refusal(merge, task) == sentence
