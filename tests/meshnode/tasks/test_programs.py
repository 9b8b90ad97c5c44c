"""The two scripts as a node starts them: their folder as working directory, nothing of meshnode in reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import meshnode.tasks

PROGRAMS = Path(meshnode.tasks.__file__).parent


PLUGINS = """
def frames(task, input_dir, output_dir):
    for index in range(task["params"]["frames"]):
        (output_dir / f"{index}.raw").write_text(str(index))
        yield {"frame": {"path": f"{index}.raw"}}

def nothing(task, input_dir, output_dir):
    return 3

def no_objects(task, input_dir, output_dir):
    return [{}, "x"]

def longest(outputs, task, output_dir):
    return max((output.value("longest") for output in outputs if not output.failed), key=len)
"""
ENTRY_POINTS = """
[meshnode.splits]
acme.frames = acme_plugins:frames
acme.nothing = acme_plugins:nothing
acme.no-objects = acme_plugins:no_objects
[meshnode.merges]
acme.longest = acme_plugins:longest
"""


def start(script, folders, *, environment=None):
    if environment is None:
        environment = {"MESH_INPUT": str(folders.input), "MESH_OUTPUT": str(folders.output)}
    # The programs must do without meshnode: a finder that refuses it stands in for the sandbox.
    guard = folders.input / "sitecustomize.py"
    guard.write_text(
        "import sys\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('meshnode', 'protocol'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Guard())\n"
    )
    return subprocess.run(
        [sys.executable, script],
        cwd=PROGRAMS,
        env={**environment, "PATH": os.environ["PATH"], "PYTHONPATH": str(guard.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_split_writes_one_input_per_shard(folders):
    task = {"split": {"mode": "batch"}, "shard_count": 2, "input": {"items": [1, 2, 3], "lang": "en"}}
    (folders.input / "input.json").write_text(json.dumps(task))
    done = start("split.py", folders)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((folders.output / "output.json").read_bytes()) == {
        "shards": [{"lang": "en", "items": [1]}, {"lang": "en", "items": [2, 3]}]
    }


def test_merge_writes_the_joined_output(folders):
    shards = [{"index": 0, "status": "success", "output": folders.add("0.json", b"[1,2]")}]
    (folders.input / "input.json").write_text(json.dumps({"merge": {"strategy": "concat-json"}, "shards": shards}))
    done = start("merge.py", folders)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folders.output / "output.json").read_bytes() == b"[1,2]"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"split": {"mode": "tile"}, "input": {}}', "input.image_url: is missing; it is what the job asks to split"),
        ("[]", "input.json: expected an object, got a list"),
        ("{", "input.json is not JSON: "),
        ('{"input": NaN}', "input.json is not JSON: NaN is not a JSON number"),
        ("[" * 100_000, "input.json is nested too deeply"),
    ],
)
def test_bad_input_is_one_sentence_on_stderr_and_exit_code_1(folders, text, sentence):
    (folders.input / "input.json").write_text(text)
    done = start("split.py", folders)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert not (folders.output / "output.json").exists()


def test_a_missing_input_json_and_a_missing_variable_are_said(folders):
    assert start("merge.py", folders).stderr == "input.json cannot be read: No such file or directory\n"
    done = start("merge.py", folders, environment={})
    assert (done.returncode, done.stderr) == (1, "the environment variable MESH_INPUT is not set\n")


@pytest.fixture
def with_plugins(folders):
    """A package with plug-ins lies where the programs import from."""
    (folders.input / "acme_plugins.py").write_text(PLUGINS)
    metadata = folders.input / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return folders


def test_a_split_plugin_is_an_entry_point_that_makes_inputs_and_files(with_plugins):
    task = {"split": {"mode": "acme.frames"}, "params": {"frames": 3}, "input": {}}
    (with_plugins.input / "input.json").write_text(json.dumps(task))
    done = start("split.py", with_plugins)
    assert (done.returncode, done.stderr) == (0, "")
    shards = json.loads((with_plugins.output / "output.json").read_bytes())["shards"]
    assert shards == [{"frame": {"path": f"{index}.raw"}} for index in range(3)]


def test_a_merge_plugin_is_an_entry_point_that_reads_outputs(with_plugins):
    shards = [
        {"index": 0, "status": "success", "output": with_plugins.add("0.json", b'"ab"')},
        {"index": 1, "status": "failed"},
        {"index": 2, "status": "success", "count": 2, "output": with_plugins.add("2.json", b'["a","abc"]')},
    ]
    task = {"merge": {"strategy": "acme.longest"}, "shards": shards}
    (with_plugins.input / "input.json").write_text(json.dumps(task))
    done = start("merge.py", with_plugins)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((with_plugins.output / "output.json").read_bytes()) == "abc"


@pytest.mark.parametrize(
    ("mode", "max_shards", "sentence"),
    [
        ("acme.gone", 9, "the plug-in 'acme.gone' of splits is not installed on this node"),
        ("acme.nothing", 9, "the split plug-in 'acme.nothing' returned no series of inputs"),
        ("acme.no-objects", 9, "the split plug-in 'acme.no-objects' made \"x\" of shard 1, which is no object"),
        ("acme.frames", 2, "the split plug-in 'acme.frames' made more than 2 shards"),
    ],
)
def test_what_a_plugin_does_wrong_is_one_sentence(with_plugins, mode, max_shards, sentence):
    task = {"split": {"mode": mode}, "max_shards": max_shards, "params": {"frames": 3}, "input": {}}
    (with_plugins.input / "input.json").write_text(json.dumps(task))
    done = start("split.py", with_plugins)
    assert (done.returncode, done.stderr) == (1, f"{sentence}\n")
