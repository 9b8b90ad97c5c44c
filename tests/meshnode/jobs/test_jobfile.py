import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.jobs import jobfile
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.inputs import Link, LocalFile, WebAddress, with_replaced
from meshnode.jobs.jobfile import load_job, parse_job
from meshnode.jobs.modelfile import load_model
from meshnode.jobs.settings import Layer, effective
from protocol.identity import Ed25519Signer
from protocol.wire import Placement

PEER = Ed25519Signer(bytes(32)).peer_id

KNOWN = [*jobfile._JOB_KEYS, *jobfile._JOB_LATER, "split_strategy", "image_url", "memory", "split_mode", "tile_size"]
KEYS = st.sampled_from(KNOWN) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["tile", "./x", "a\0b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture
def folder(tmp_path):
    """The directory of a job file, with a photograph and a model in it."""
    (tmp_path / "photo.jpg").write_bytes(b"jpeg")
    (tmp_path / "model").mkdir()
    return tmp_path


def parse(folder, **job):
    return parse_job({"model": "features-v1", **job}, "job.yaml", folder)


def refusal(folder, **job):
    with pytest.raises(InvalidFile) as caught:
        parse(folder, **job)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(st.dictionaries(KEYS, VALUES), st.booleans())
def test_any_value_is_a_job_or_an_invalid_file(value, complete):
    with contextlib.suppress(InvalidFile):
        parse_job({**value, "model": "m"} if complete else value, "job.yaml", Path("no-such-directory"))


def test_the_first_job_of_the_design(folder):
    (folder / "job.json").write_text(
        '{"job_id": "bd92-e3f1", "model": "features-v1",'
        ' "input": {"image_url": "ipfs://Qm123", "split_strategy": "tile_512"}, "shard_count": 16}'
    )
    job = load_job(folder / "job.json")
    assert (job.job_id, job.model, job.model_dir) == ("bd92-e3f1", "features-v1", None)
    assert job.input == {"image_url": "ipfs://Qm123"}
    assert job.references == (Link(("image_url",), "Qm123"),)
    assert job.layer == Layer(split_mode="tile", tile_size=512, shard_count=16)
    assert (job.deadline_s, job.priority, job.durability) == (3600, 5, 1)


@pytest.mark.parametrize("write", [lambda stages: {"stages": stages}, lambda stages: {"job_graph": {"stages": stages}}])
def test_a_graph_of_one_stage_is_that_stage_with_the_job_laid_over_it(folder, write):
    stage = {"model": "asr-v1", "timeout_s": 60, "attempts": 2}
    job = parse_job({**write([stage]), "attempts": 3}, "job.yaml", folder)
    assert job.model == "asr-v1"
    assert job.layer == Layer(timeout_s=60, attempts=3)


def test_files_are_found_beside_the_job_wherever_in_the_input_they_stand(folder):
    job = parse(
        folder,
        input={
            "image_url": "photo.jpg",
            "items": [{"audio_url": "ipfs://bafy1", "mask_url": str(folder / "photo.jpg")}, {"page_url": None}],
            "caption": "no-file.jpg",
        },
    )
    assert job.references == (
        LocalFile(("image_url",), folder / "photo.jpg"),
        Link(("items", 0, "audio_url"), "bafy1"),
        LocalFile(("items", 0, "mask_url"), folder / "photo.jpg"),
    )
    assert [file.media_type for file in job.local_files] == ["image/jpeg", "image/jpeg"]
    replaced = with_replaced(job.input, {("items", 0, "audio_url"): {"cid": "bafy1"}})
    assert replaced["items"][0]["audio_url"] == {"cid": "bafy1"}
    assert job.input["items"][0]["audio_url"] == "ipfs://bafy1"


def test_a_model_may_be_a_directory_beside_the_job(folder):
    job = parse(folder, model="./model")
    assert (job.model, job.model_dir) == ("./model", folder / "model")


def test_web_addresses_are_taken_where_they_are_allowed(folder):
    value = {"model": "m", "input": {"image_url": "https://example.org/a.jpg"}}
    job = parse_job(value, "job.yaml", folder, allow_http=True)
    assert job.references == (WebAddress(("image_url",), "https://example.org/a.jpg"),)


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({"shard_cuont": 3}, "job.yaml: 'shard_cuont' is not a key of a job; did you mean 'shard_count'?"),
        ({"model": None}, "job.yaml: 'model' is missing: a name, publisher/name, a CID or a directory such as ./model"),
        ({"model": "./gone"}, "job.yaml: model: no such directory: './gone'"),
        ({"model": "a/b/c"}, "job.yaml: model: 'a/b/c' is not a name, publisher/name, a CID or a directory such as"),
        ({"model": 3}, "job.yaml: model: expected a text, got 3"),
        ({"job_id": "a b"}, "job.yaml: job_id: 'a b' is not a name"),
        ({"input": []}, "job.yaml: input: expected a mapping, got a list"),
        ({"input": {"image_url": "foo.png"}}, "job.yaml: input.image_url: no such file: 'foo.png'"),
        ({"input": {"items": [{"a_url": "x"}]}}, "job.yaml: input.items[0].a_url: no such file: 'x'"),
        ({"input": {"image_url": "model"}}, "job.yaml: input.image_url: not a regular file: 'model'"),
        ({"input": {"image_url": "photo.jpg/x"}}, "job.yaml: input.image_url: no such file: 'photo.jpg/x'"),
        ({"input": {"image_url": "a\0b"}}, "job.yaml: input.image_url: cannot read 'a\\x00b': embedded null byte"),
        ({"input": {"image_url": "x" * 5000}}, "job.yaml: input.image_url: cannot read 'xxx"),
        ({"input": {"image_url": 5}}, "job.yaml: input.image_url: expected a path or an ipfs:// link, got 5"),
        ({"input": {"image_url": ""}}, "job.yaml: input.image_url: expected a path or an ipfs:// link, got ''"),
        ({"input": {"image_url": "ipfs://a/b"}}, "job.yaml: input.image_url: 'ipfs://a/b' is not ipfs:// and a CID"),
        (
            {"input": {"image_url": "HTTPS://example.org/a.jpg"}},
            "job.yaml: input.image_url: https:// addresses are not allowed here; give a file or an ipfs:// link",
        ),
        (
            {"input": {"image_url": "file:///etc/passwd"}},
            "job.yaml: input.image_url: cannot fetch 'file://' addresses; give a file or an ipfs:// link",
        ),
        ({"input": {"split_strategy": "tile_0"}}, "job.yaml: input.split_strategy: the tile size must be from 1 to"),
        (
            {"input": {"split_strategy": "rows"}},
            "job.yaml: input.split_strategy: 'rows' is not one of tile, batch, window, lines, range, candidates, ",
        ),
        (
            {"input": {"split_strategy": "acme.frames!"}},
            "job.yaml: input.split_strategy: 'acme.frames!' is no plug-in's name (up to 64 letters, digits, '.', '_'",
        ),
        (
            {"input": {"split_strategy": "tile_64"}, "multi_node": {"tile_size": 32}},
            "job.yaml: input.split_strategy: says tile_size 64, but multi_node says 32",
        ),
        ({"shard_count": 0}, "job.yaml: shard_count: must be at least 1, got 0"),
        ({"shard_count": -4}, "job.yaml: shard_count: must be at least 1, got -4"),
        ({"shard_count": "16"}, "job.yaml: shard_count: expected an integer, got '16'"),
        ({"priority": 10}, "job.yaml: priority: must be at most 9, got 10"),
        ({"attempts": 0}, "job.yaml: attempts: must be at least 1, got 0"),
        ({"max_lost": -1}, "job.yaml: max_lost: must be at least 0, got -1"),
        ({"allow_failures": -1}, "job.yaml: allow_failures: must be at least 0, got -1"),
        ({"durability": 3}, "job.yaml: durability: must be at most 2, got 3"),
        ({"deadline_s": 0}, "job.yaml: deadline_s: must be at least 1, got 0"),
        ({"isolation": "vm"}, "job.yaml: isolation: 'vm' is not one of container, namespace, landlock"),
        (
            {"merge_strategy": "none", "multi_node": {"merge_strategy": "concat-json"}},
            "job.yaml: merge_strategy: is 'none' here but 'concat-json' in multi_node",
        ),
        ({"placement": []}, "job.yaml: placement: expected a mapping, got a list"),
        ({"placement": {"regoin": "eu"}}, "job.yaml: placement: 'regoin' is not a key of placement; did you mean"),
        ({"placement": {"region": 3}}, "job.yaml: placement.region: expected a text, got 3"),
        (
            {"placement": {"region": "eu", "labels": {"region": "us"}}},
            "job.yaml: placement.region: is 'eu' here but 'us' in labels",
        ),
        ({"placement": {"labels": ["eu"]}}, "job.yaml: placement.labels: expected a mapping, got a list"),
        ({"placement": {"labels": {"rack": 7}}}, "job.yaml: placement.labels: expected a text for 'rack', got 7"),
        ({"placement": {"labels": {"rack": ""}}}, "job.yaml: placement.labels: a label's key and value have 1 to 128"),
        ({"placement": {"near": "me"}}, "job.yaml: placement.near: 'me' is not one of input"),
        (
            {"placement": {"spread": 2}},
            "job.yaml: placement.spread: expected true, false or the key of a label such as",
        ),
        ({"placement": {"avoid": "region=eu"}}, "job.yaml: placement.avoid: expected a list, got 'region=eu'"),
        (
            {"placement": {"only": ["bob"]}},
            "job.yaml: placement.only: 'bob' is neither a peer id (12D3Koo…) nor a label",
        ),
        (
            {"placement": {"only": ["=eu"]}},
            "job.yaml: placement.only: '=eu' is neither a peer id (12D3Koo…) nor a label",
        ),
        ({"placement": {"only": ["a=b"] * 17}}, "job.yaml: placement.only: names 17 peers and labels; at most 16 are"),
        ({"max_price": -1}, "job.yaml: max_price: must be at least 0, got -1"),
        ({"max_price": "free"}, "job.yaml: max_price: expected a number, got 'free'"),
        ({"merge_strategy": "avg"}, "job.yaml: merge_strategy: 'avg' is not one of concat-json, concat, stitch, sum, "),
        ({"multi_node": {"tile_size": 0}}, "job.yaml: multi_node.tile_size: must be at least 1, got 0"),
        ({"stages": [{"model": "a"}]}, "job.yaml: model: stands beside stages; name the model in the stage"),
        ({"model": None, "stages": []}, "job.yaml: stages: expected a list of stages, got an empty one"),
        ({"model": None, "stages": [3]}, "job.yaml: stages[0]: expected a mapping, got 3"),
        ({"model": None, "stages": [{}]}, "job.yaml: stages[0]: 'model' is missing: "),
        (
            {"model": None, "stages": [{"model": "a", "prams": {}}]},
            "job.yaml: stages[0]: 'prams' is not a key of a stage; did you mean 'params'?",
        ),
        (
            {"model": None, "job_graph": {"stages": [{"model": "a"}, {"model": "b"}]}},
            "job.yaml: job_graph.stages: a graph of 2 stages is not supported by this version",
        ),
    ],
)
def test_jobs_that_make_no_sense(folder, job, sentence):
    assert refusal(folder, **job).startswith(sentence)


def test_a_placement_says_where_tasks_may_run_and_where_they_rather_would(folder):
    only = [PEER, "gpu=a100", PEER]
    job = parse(
        folder,
        placement={"region": "eu", "labels": {"rack": "7"}, "near": "input", "spread": True, "only": only},
        max_price=0.002,
    )
    assert job.layer.max_price == 2_000
    assert job.layer.placement == Placement(
        labels={"rack": "7", "region": "eu"}, only=(PEER, "gpu=a100"), near_input=True, spread="peers"
    )
    assert parse(folder, placement={"spread": "region"}).layer.placement == Placement(spread="region")
    assert parse(folder, placement={"spread": False, "near": None}).layer.placement == Placement()


def test_a_stages_placement_holds_unless_the_job_has_one(folder):
    stage = {"model": "asr-v1", "placement": {"region": "eu"}, "max_price": 1}
    job = parse_job({"stages": [stage], "max_price": 2}, "job.yaml", folder)
    assert (job.layer.placement, job.layer.max_price) == (Placement(labels={"region": "eu"}), 2_000_000)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("verify", 2),
        ("persist", True),
        ("cache", True),
        ("stream", True),
        ("stream", 0),
    ],
)
def test_keys_of_features_that_are_not_built_are_refused_and_named(folder, key, value):
    assert refusal(folder, **{key: value}) == f"job.yaml: {key}: is not supported by this version"


def test_the_example_job_and_model_are_valid_together(tmp_path):
    example = Path(__file__).parents[3] / "examples" / "features"
    (tmp_path / "features").mkdir()
    for name in ("job.yaml", "model.yaml"):
        (tmp_path / "features" / name).write_bytes((example / name).read_bytes())
    (tmp_path / "hubble_deep_field.jpg").touch()
    job = load_job(tmp_path / "features" / "job.yaml")
    settings = effective(load_model(job.model_dir).layer, job.layer, file=job.file)
    assert (settings.split.as_json(), settings.shard_count, settings.merge) == (
        {"mode": "tile", "key": None, "tile_size": 256, "overlap": 32},
        16,
        "concat-json",
    )
    assert [file.path.resolve() for file in job.local_files] == [tmp_path / "hubble_deep_field.jpg"]
