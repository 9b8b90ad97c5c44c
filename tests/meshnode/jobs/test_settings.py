import pytest

from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.settings import Layer, StageSettings, effective
from meshnode.jobs.splitting import SPLIT_KEYS, Split, check_split
from protocol.records import SPLITS

TILED = Layer(split_mode="tile", tile_size=256, overlap=32, merge="concat-json", max_shards=32, cpu=2)


def test_every_split_that_the_protocol_knows_is_one_of_a_job_file():
    assert tuple(SPLIT_KEYS) == SPLITS


def test_where_nobody_says_anything_the_defaults_of_the_format_stand():
    assert effective(Layer(), Layer(), file="job.yaml") == StageSettings(
        split=Split("none"),
        merge="none",
        shard_count=None,
        max_shards=None,
        cpu=1,
        memory_bytes=2**30,
        isolation=None,
        timeout_s=600,
        attempts=4,
        max_lost=16,
        allow_failures=0,
        params={},
    )


def test_the_job_is_laid_over_the_model_and_params_key_by_key():
    model = Layer(split_mode="tile", tile_size=256, overlap=32, cpu=2, timeout_s=9, params={"a": 1, "b": {"c": 1}})
    job = Layer(tile_size=64, overlap=0, cpu=1, allow_failures=0, params={"b": {}})
    settings = effective(model, job, file="job.yaml")
    assert settings.split == Split("tile", None, 64, 0)
    assert (settings.cpu, settings.timeout_s, settings.merge) == (1, 9, "concat-json")
    assert settings.params == {"a": 1, "b": {}}


def test_a_job_that_changes_the_mode_leaves_the_models_tiles_behind():
    settings = effective(TILED, Layer(split_mode="batch", split_key="photos"), file="job.yaml")
    assert settings.split.as_json() == {"mode": "batch", "key": "photos"}


def test_a_job_that_switches_the_split_off_has_no_merge():
    settings = effective(TILED, Layer(split_mode="none"), file="job.yaml")
    assert (settings.split.mode, settings.merge) == ("none", "none")


@pytest.mark.parametrize(
    ("model", "job", "sentence"),
    [
        (TILED, Layer(shard_count=33), "job.yaml: shard_count: 33 is more than max_shards, 32"),
        (
            Layer(),
            Layer(shard_count=2),
            "job.yaml: shard_count: 2 shards are asked for, but neither the job nor the model has a split_mode",
        ),
        (
            Layer(split_mode="range"),
            Layer(tile_size=5),
            "job.yaml: multi_node.tile_size: has no meaning with split_mode 'range'",
        ),
        (
            Layer(split_mode="window", window_size=10),
            Layer(stride=11),
            "job.yaml: multi_node.stride: 11 is more than window_size, 10: gaps would be left",
        ),
        (
            Layer(split_mode="candidates"),
            Layer(),
            "job.yaml: shard_count: is missing; it says how many candidates split_mode 'candidates' makes",
        ),
        (
            Layer(split_mode="range"),
            Layer(prefer="smallest"),
            "job.yaml: multi_node.prefer: has no meaning with merge_strategy 'concat-json'",
        ),
        (
            Layer(),
            Layer(merge="concat-json"),
            "job.yaml: merge_strategy: 'concat-json' has nothing to merge: "
            "neither the job nor the model has a split_mode",
        ),
    ],
)
def test_layers_that_make_no_sense_together(model, job, sentence):
    with pytest.raises(InvalidFile) as caught:
        effective(model, job, file="job.yaml")
    assert str(caught.value) == sentence


def test_the_input_must_have_what_the_split_cuts():
    assert check_split(Split("tile"), {"image_url": "a.jpg"}, file="job.yaml") == "image_url"
    assert check_split(Split("lines"), {"text_url": "a.txt"}, file="job.yaml") == "text_url"
    assert check_split(Split("batch", "photos"), {"photos": []}, file="job.yaml") == "photos"
    for mode in ("none", "candidates", "container", "acme.frames"):
        assert check_split(Split(mode), {}, file="job.yaml") is None


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        (Split("tile"), "input.image_url: is missing; split_mode 'tile' cuts it"),
        (Split("lines"), "input.text: is missing, and so is text_url; split_mode 'lines' cuts it"),
        (Split("lines", "log"), "input.log: is missing; split_mode 'lines' cuts it"),
        (Split("acme.frames", "film"), "input.film: is missing; split_mode 'acme.frames' cuts it"),
    ],
)
def test_an_input_without_what_the_split_cuts_is_refused(split, sentence):
    with pytest.raises(InvalidFile) as caught:
        check_split(split, {"items": []}, file="job.yaml")
    assert str(caught.value) == f"job.yaml: {sentence}"


def test_each_mode_hands_on_the_keys_that_it_knows():
    layer = Layer(split_mode="window", window_size=100, stride=50, tile_size=9, seed=3)
    assert effective(layer, Layer(), file="job.yaml").split.as_json() == {
        "mode": "window",
        "key": None,
        "window_size": 100,
        "stride": 50,
    }
    layer = Layer(split_mode="candidates", seed=3, shard_count=2, merge="best", merge_key="s", prefer="smallest")
    settings = effective(layer, Layer(), file="job.yaml")
    assert settings.split.as_json() == {"mode": "candidates", "key": None, "seed": 3}
    assert (settings.merge, settings.merge_key, settings.prefer) == ("best", "s", "smallest")
    settings = effective(layer, Layer(merge="mean"), file="job.yaml")
    assert (settings.merge, settings.merge_key, settings.prefer) == ("mean", None, None)
