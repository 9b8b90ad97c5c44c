"""The two scripts as a node starts them: their folder as working directory, nothing of meshnode in reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import meshnode.tasks

PROGRAMS = Path(meshnode.tasks.__file__).parent


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
