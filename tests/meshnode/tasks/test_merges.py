"""The merges other than concat-json: what is put together is what was split, chosen or calculated."""

import io
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.jobs.canonical import canonical_json
from meshnode.tasks.splitmerge import arrays
from meshnode.tasks.splitmerge.merge import STRATEGIES, merge

NUMBERS = st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9)


def part(folders, index, data, count=None):
    shard = {"index": index, "status": "success", "output": folders.add(f"shards/{index:06}", data)}
    return shard if count is None else {**shard, "count": count}


def parts(folders, outputs, batched=False):
    """The outputs as a merge reads them: each on its own, or the first half of them as one task's."""
    half = len(outputs) // 2 if batched else 0
    shards = [part(folders, 0, canonical_json(outputs[:half]), half)] if half else []
    return shards + [part(folders, index, canonical_json(outputs[index])) for index in range(half, len(outputs))]


def linked(folders, name, data):
    """A file to which outputs link, where the node puts it; the link."""
    folders.add(f"files/cid-{name}", data)
    return {"cid": f"cid-{name}", "size": len(data), "media_type": "application/octet-stream"}


def run(folders, strategy, shards, **settings):
    return folders.run(merge, {"merge": {"strategy": strategy, **settings}, "shards": shards})


def refusal(folders, strategy, shards, **settings):
    said = folders.refusal(merge, {"merge": {"strategy": strategy, **settings}, "shards": shards})
    assert "\n" not in said
    return said


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# -- one after the other -----------------------------------------------------------------------------------------------


@given(st.lists(st.text() | st.integers(0, 9) | st.lists(st.integers(-9, 9), max_size=3), max_size=7), st.booleans())
def test_concat_json_and_none_understand_tasks_of_several_shards(make_folders, outputs, batched):
    folders = make_folders()
    shards = parts(folders, outputs, batched)
    joined = [item for output in outputs for item in (output if isinstance(output, list) else [output])]
    assert run(folders, "concat-json", shards) == joined
    half = len(outputs) // 2 if batched else 0
    assert run(folders, "none", shards)[:half] == outputs[:half]


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=6))
def test_concat_joins_bytes_as_they_are(make_folders, outputs):
    folders = make_folders()
    folders_input = [part(folders, index, b"\x00" + data) for index, data in enumerate(outputs)]
    merge({"merge": {"strategy": "concat"}, "shards": folders_input[::-1]}, folders.input, folders.output)
    assert (folders.output / "output.bin").read_bytes() == b"".join(b"\x00" + data for data in outputs)


def test_concat_takes_texts_and_files_for_what_they_mean(folders):
    link = linked(folders, "film", b"\x01film")
    shards = [
        part(folders, 0, canonical_json("héllo\n")),
        part(folders, 1, canonical_json(link)),
        {"index": 2, "status": "failed"},
        part(folders, 3, b"plain\n"),
        part(folders, 4, canonical_json(["x", link, {"a": 1}]), 3),
        part(folders, 7, b'"a","b"\n'),
    ]
    merge({"merge": {"strategy": "concat"}, "shards": shards}, folders.input, folders.output)
    assert (folders.output / "output.bin").read_bytes() == (
        "héllo\n".encode() + b'\x01filmplain\nx\x01film{"a":1}"a","b"\n'
    )


# -- one of them -------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=9), st.booleans())
def test_vote_takes_the_commonest_and_of_several_the_first(make_folders, labels, batched):
    counts = Counter(labels)
    winner = next(label for label in labels if counts[label] == max(counts.values()))
    folders = make_folders()
    assert run(folders, "vote", parts(folders, labels, batched)) == winner
    outputs = [{"label": label, "by": index} for index, label in enumerate(labels)]
    elected = run(folders, "vote", parts(folders, outputs, batched), key="label")
    assert elected == {"label": winner, "by": labels.index(winner)}


def test_vote_takes_outputs_that_are_no_json(folders):
    shards = [part(folders, index, data) for index, data in enumerate([b"\x00a", b"\x00b", b"\x00b"])]
    merge({"merge": {"strategy": "vote"}, "shards": shards}, folders.input, folders.output)
    assert (folders.output / "output.bin").read_bytes() == b"\x00b"


@given(st.lists(NUMBERS, min_size=1, max_size=9), st.sampled_from(["largest", "smallest"]), st.booleans())
def test_best_takes_the_largest_or_smallest_score(make_folders, scores, prefer, batched):
    chosen = max(scores) if prefer == "largest" else min(scores)
    outputs = [{"score": score, "by": index} for index, score in enumerate(scores)]
    folders = make_folders()
    found = run(folders, "best", parts(folders, outputs, batched), prefer=prefer)
    assert found == {"score": chosen, "by": scores.index(chosen)}


def test_the_elements_of_lists_compete_one_by_one(folders):
    outputs = [[{"loss": 3}, {"loss": 1, "lr": 0.1}], {"loss": 2}, []]
    assert run(folders, "best", parts(folders, outputs), key="loss", prefer="smallest") == {"loss": 1, "lr": 0.1}


# -- calculated --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(NUMBERS, st.lists(NUMBERS, min_size=2, max_size=2)), min_size=1, max_size=6), st.booleans())
def test_sum_and_mean_of_numbers_wherever_they_stand(make_folders, values, batched):
    outputs = [{"loss": loss, "layers": [{"bias": bias, "name": "b"}], "epoch": "3"} for loss, bias in values]
    folders = make_folders()
    shards = parts(folders, outputs, batched)
    sums = [sum(loss for loss, _ in values), *(sum(bias[i] for _, bias in values) for i in range(2))]
    added = run(folders, "sum", shards)
    assert [added["loss"], *added["layers"][0]["bias"]] == pytest.approx(sums)
    assert (added["layers"][0]["name"], added["epoch"]) == ("b", "3")
    averaged = run(folders, "mean", shards)
    assert [averaged["loss"], *averaged["layers"][0]["bias"]] == pytest.approx([s / len(values) for s in sums])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.uint8, ">f4"])
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (0, 2)])
def test_sum_and_mean_of_arrays_in_files(folders, dtype, shape, monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_ITEMS", 4)
    random = np.random.default_rng(1)
    given = [np.asarray(random.integers(0, 9, shape), dtype) for _ in range(3)]
    outputs = [{"grad": linked(folders, f"{i}.npy", npy(array)), "n": i} for i, array in enumerate(given)]
    for strategy, exact in (("sum", sum(a.astype(float) for a in given)), ("mean", np.mean(given, axis=0))):
        found = run(folders, strategy, parts(folders, outputs))
        assert found["n"] == (3 if strategy == "sum" else 1)
        merged = np.load(folders.output / found["grad"]["path"])
        assert merged.shape == shape
        np.testing.assert_allclose(merged.astype(float), exact, rtol=1e-3)
        if np.dtype(dtype).kind == "f":
            assert merged.dtype == np.dtype(dtype).newbyteorder("=")
        (folders.output / found["grad"]["path"]).unlink()


# -- hostile -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "outputs", "sentence"),
    [
        ("sum", [], "sum: no shard has an output"),
        ("vote", [], "vote: no shard has an output"),
        ("best", [[]], "best: no shard has an output"),
        ("stitch", [[]], "stitch: the outputs list no tiles"),
        ("sum", [{"a": 1}, {"b": 1}], "the output of shard 1: sum cannot put an object with b together with an object"),
        ("sum", [[1], [1, 2]], "the output of shard 1: sum cannot put a list of 2 together with a list of 1"),
        ("mean", [{"a": [1]}, {"a": ["x"]}], 'the output of shard 1: a[0]: mean cannot put "x" together with 1'),
        ("mean", [True, False], "the output of shard 1: mean cannot put false together with true"),
        ("sum", [1e308, 1e308], "sum: the value: the result is too large for a number"),
        (
            "sum",
            [{"cid": "gone", "size": 1}],
            "the output of shard 0: the file: no file 'files/gone' came with the task",
        ),
        ("best", [{"score": "high"}], 'the output of shard 0: score: expected a number to compare by, got "high"'),
        ("best", [3], "the output of shard 0: score: expected a number to compare by, got null"),
        ("concat", [{"cid": "../x", "size": 1}], "the output of shard 0: the file: no file 'files/../x' came with"),
        ("stitch", [{"tiles": 3}], "the output of shard 0: tiles: expected a list of tiles, got 3"),
    ],
)
def test_outputs_that_cannot_be_merged(folders, strategy, outputs, sentence):
    assert refusal(folders, strategy, parts(folders, outputs)).startswith(sentence)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"no array", "is not an array in .npy format"),
        (npy(np.zeros(3))[:-1], "the array is cut short, or something follows after it"),
        (npy(np.array(["a"])), "an array of <U1 is not one of integers or floats"),
        (npy(np.zeros(4)), "an array of float64 (4,) cannot be put together with one of float64 (3,)"),
        (npy(np.zeros(3, np.float32)), "an array of float32 (3,) cannot be put together with one of float64 (3,)"),
    ],
)
def test_files_that_are_no_arrays_to_add(folders, data, sentence):
    links = [linked(folders, "a.npy", npy(np.zeros(3))), linked(folders, "b.npy", data)]
    assert refusal(folders, "mean", parts(folders, [{"g": link} for link in links])) == (
        f"the output of shard 1: g: {sentence}"
    )


def test_an_object_array_is_never_unpickled(folders):
    link = linked(folders, "a.npy", npy(np.array([{}], dtype=object)))
    assert "an array of object is not one of" in refusal(folders, "sum", parts(folders, [link]))


@pytest.mark.parametrize(
    ("data", "count", "sentence"),
    [
        (b"[1,2]", 3, "the outputs from shard 0 on are 2, expected 3"),
        (b"[1,2,3,4]", 3, "the outputs from shard 0 on are 4, expected 3"),
        (b"[1,", 1, "the outputs from shard 0 on are not a JSON list: "),
        (b"{}", 1, "the outputs from shard 0 on are not a JSON list: expected a list"),
        (b"[1]", 0, "shards[0].count: expected a number of shards, got 0"),
    ],
)
def test_a_task_of_several_shards_has_the_output_of_each(folders, data, count, sentence):
    assert refusal(folders, "sum", [part(folders, 0, data, count)]).startswith(sentence)


def test_settings_of_best_that_make_no_sense(folders):
    shards = parts(folders, [{"score": 1}])
    assert refusal(folders, "best", shards, prefer="best") == 'merge.prefer: "best" is not one of largest, smallest'
    assert refusal(folders, "best", shards, key=3) == "merge.key: expected a name, got 3"
    assert json.loads(canonical_json(run(folders, "best", shards))) == {"score": 1}


_ANY = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tiles", "core", "x", "path", "cid", "size", "score", "a"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(STRATEGIES)), st.lists(_ANY, min_size=1, max_size=3), st.booleans())
def test_whatever_the_outputs_are_they_are_merged_or_refused_in_one_line(make_folders, strategy, outputs, batched):
    folders = make_folders()
    folders.attempt(merge, {"merge": {"strategy": strategy}, "shards": parts(folders, outputs, batched)})


@given(st.sampled_from(sorted(STRATEGIES)), st.lists(st.binary(max_size=12), min_size=1, max_size=3))
def test_whatever_bytes_the_outputs_are_they_are_merged_or_refused_in_one_line(make_folders, strategy, outputs):
    folders = make_folders()
    shards = [part(folders, index, data) for index, data in enumerate(outputs)]
    folders.attempt(merge, {"merge": {"strategy": strategy}, "shards": shards})
