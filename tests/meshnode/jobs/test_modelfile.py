import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshnode.jobs import modelfile, settings
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.modelfile import load_model, parse_model
from meshnode.jobs.settings import Layer

DIGEST = "sha256:" + "0f" * 32
MODEL = {"model_id": "features-v1", "command": ["python3", "features.py"]}

# Keys of the format with any value, and keys nobody knows.
KNOWN = [*modelfile._KEYS, *modelfile._LATER, *settings.MULTI_NODE_KEYS, *settings.MULTI_NODE_LATER, "cpu", "memory"]
KEYS = st.sampled_from(KNOWN) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["tile", "1GiB", "none"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


def refusal(**changes):
    with pytest.raises(InvalidFile) as caught:
        parse_model({**MODEL, **changes})
    return str(caught.value)


@given(st.dictionaries(KEYS, VALUES), st.booleans())
def test_any_value_is_a_model_or_an_invalid_file(value, complete):
    with contextlib.suppress(InvalidFile):
        parse_model({**value, **MODEL} if complete else value)


def test_the_model_of_the_design(tmp_path):
    (tmp_path / "model.yaml").write_text(
        f"""
        model_id: asr-v1
        image: registry/name@{DIGEST}
        command: [python3, asr.py]
        resources: {{cpu: 1, memory: 1GiB, gpu: {{count: 0}}}}
        serve: once
        timeout_s: 120
        params: {{threshold: 0.1}}
        multi_node:
          enabled: true
          split_mode: tile
          tile_size: 512
          overlap: 32
          merge_strategy: concat-json
          max_shards: 32
          gpu: false
        """
    )
    model = load_model(tmp_path)
    assert (model.model_id, model.image, model.command) == ("asr-v1", f"registry/name@{DIGEST}", ("python3", "asr.py"))
    assert model.layer == Layer(
        split_mode="tile",
        tile_size=512,
        overlap=32,
        merge="concat-json",
        max_shards=32,
        cpu=1,
        memory_bytes=2**30,
        timeout_s=120,
        params={"threshold": 0.1},
    )
    assert model.value == yaml.safe_load((tmp_path / "model.yaml").read_text())


def test_multi_node_can_be_switched_off():
    model = parse_model({**MODEL, "multi_node": {"enabled": False, "split_mode": "tile"}})
    assert model.layer.split_mode == "none"


@pytest.mark.parametrize(
    ("memory", "size"),
    [("1GiB", 2**30), ("512MiB", 2**29), ("1.5GB", 1_500_000_000), (2**30, 2**30), ("2048 KiB", 2**21)],
)
def test_memory_sizes(memory, size):
    assert parse_model({**MODEL, "resources": {"memory": memory}}).layer.memory_bytes == size


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_id": None}, "model.yaml: 'model_id' is missing: the name under which the model is published"),
        ({"model_id": "a/b"}, "model.yaml: model_id: 'a/b' is not a name (up to 64 letters, digits, '.', '_' and '-')"),
        ({"command": None}, "model.yaml: 'command' is missing: the program and its arguments, as a list"),
        ({"command": "python3 x.py"}, "model.yaml: command: expected a list, got 'python3 x.py'"),
        ({"command": []}, "model.yaml: command: expected the program and its arguments, from 1 to 256 of them"),
        ({"command": ["sh", 1]}, "model.yaml: command[1]: expected a text; quote numbers and the like"),
        ({"comand": []}, "model.yaml: 'comand' is not a key of a model; did you mean 'command'?"),
        (
            {"image": "python:3.11"},
            "model.yaml: image: 'python:3.11' does not say which bytes to run; write it as name@sha256:<64 hex digits>",
        ),
        (
            {"image": "mesh:bafy"},
            "model.yaml: image: an image from the mesh ('mesh:…') is not supported by this version",
        ),
        ({"timeout_s": 0}, "model.yaml: timeout_s: must be at least 0.001, got 0"),
        ({"timeout_s": "2m"}, "model.yaml: timeout_s: expected a number, got '2m'"),
        ({"params": [1]}, "model.yaml: params: expected a mapping, got a list"),
        ({"resources": {"memory": "1 gig"}}, "model.yaml: resources.memory: '1 gig' is not a size in bytes such as"),
        ({"resources": {"memory": "1B"}}, "model.yaml: resources.memory: must be from 1048576 to"),
        ({"resources": {"cpu": True}}, "model.yaml: resources.cpu: expected a number, got true"),
        ({"multi_node": []}, "model.yaml: multi_node: expected a mapping, got a list"),
        ({"multi_node": {"tile_size": 0}}, "model.yaml: multi_node.tile_size: must be at least 1, got 0"),
        ({"multi_node": {"overlap": -1}}, "model.yaml: multi_node.overlap: must be at least 0, got -1"),
        ({"multi_node": {"tile_size": 5.5}}, "model.yaml: multi_node.tile_size: expected an integer, got 5.5"),
        ({"multi_node": {"max_shards": 0}}, "model.yaml: multi_node.max_shards: must be at least 1, got 0"),
        (
            {"multi_node": {"split_mode": "rows"}},
            "model.yaml: multi_node.split_mode: 'rows' is not one of tile, batch, window, lines, range, ",
        ),
        (
            {"multi_node": {"merge_strategy": "glue"}},
            "model.yaml: multi_node.merge_strategy: 'glue' is not one of concat-json, concat, stitch, ",
        ),
        (
            {"multi_node": {"split_mode": "batch", "overlap": 3}},
            "model.yaml: multi_node.overlap: has no meaning with split_mode 'batch'",
        ),
        (
            {"multi_node": {"tile_sise": 3}},
            "model.yaml: multi_node: 'tile_sise' is not a key of multi_node; did you mean 'tile_size'?",
        ),
        ({"serve": {"http": {"port": 80}}}, "model.yaml: serve: a model that is asked over HTTP is not supported"),
        ({"serve": "always"}, "model.yaml: serve: 'always' is not one of once, warm"),
        (
            {"serve": "warm", "image": f"registry/name@{DIGEST}"},
            "model.yaml: serve: 'warm' is for models without an image",
        ),
    ],
)
def test_models_that_make_no_sense(changes, sentence):
    assert refusal(**changes).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"chained_models": [{"name": "a", "model_id": "b"}]}, "chained_models"),
        ({"resources": {"gpu": {"count": 1}}}, "resources.gpu"),
        ({"multi_node": {"distributed_runtime": "ray"}}, "multi_node.distributed_runtime"),
        ({"multi_node": {"shard_role": "worker"}}, "multi_node.shard_role"),
        ({"multi_node": {"cluster_size": 4}}, "multi_node.cluster_size"),
        ({"multi_node": {"coordination_port": 6379}}, "multi_node.coordination_port"),
        ({"multi_node": {"gpu": True}}, "multi_node.gpu"),
        ({"multi_node": {"gpu": 0}}, "multi_node.gpu"),
    ],
)
def test_keys_of_features_that_are_not_built_are_refused_and_named(changes, place):
    assert refusal(**changes) == f"model.yaml: {place}: is not supported by this version"


@pytest.mark.parametrize("name", ["container", "acme.frames"])
def test_a_model_may_split_and_merge_by_itself_or_by_a_plugin(name):
    layer = parse_model({**MODEL, "multi_node": {"split_mode": name, "merge_strategy": name}}).layer
    assert (layer.split_mode, layer.merge) == (name, name)


def test_a_directory_without_a_model_yaml_is_said(tmp_path):
    with pytest.raises(InvalidFile, match=r"model\.yaml: no such file$"):
        load_model(tmp_path)


def test_a_model_is_loaded_anew_for_each_task_unless_it_says_otherwise():
    kept = [parse_model({**MODEL, **changes}).warm for changes in ({}, {"serve": "once"}, {"serve": "warm"})]
    assert kept == [False, False, True]
