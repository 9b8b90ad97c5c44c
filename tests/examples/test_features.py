"""The promise of examples/features: the same features, to the last bit, however the photograph was cut.

The real programs run here as the processes that they are; only the node between them is played by the test.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import meshnode.tasks

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "features"
BUILT_IN = Path(meshnode.tasks.__file__).parent


@pytest.fixture(scope="session")
def photograph(tmp_path_factory):
    copies = tmp_path_factory.mktemp("examples")
    shutil.copyfile(ROOT / "examples" / "photograph.py", copies / "photograph.py")
    done = subprocess.run([sys.executable, copies / "photograph.py"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def model():
    return yaml.safe_load((MODEL / "model.yaml").read_text())


@pytest.fixture(scope="session")
def unsplit(photograph, model, tmp_path_factory):
    """The features of the whole photograph in one run."""
    folder = tmp_path_factory.mktemp("whole")
    image = link(photograph, folder / "input")
    return run(MODEL, "features.py", {**model["params"], "image_url": image}, folder)


def link(source, folder):
    """Put a file into a task's input folder, as a node does, and return the value that stands for it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    if not target.exists():
        target.hardlink_to(source)
    return {"path": source.name, "cid": source.name, "size": source.stat().st_size, "media_type": "image/jpeg"}


def run(program_folder, script, task_input, folder):
    """Run one task under the container contract in ``folder`` and return its output."""
    (folder / "input").mkdir(parents=True, exist_ok=True)
    (folder / "output").mkdir()
    (folder / "input" / "input.json").write_text(json.dumps(task_input))
    environment = {"MESH_INPUT": str(folder / "input"), "MESH_OUTPUT": str(folder / "output")}
    subprocess.run(
        [sys.executable, script], cwd=program_folder, env={**os.environ, **environment}, check=True, timeout=60
    )
    return json.loads((folder / "output" / "output.json").read_bytes())


def run_split(photograph, model, tile_size, overlap, shard_count, folder):
    """Split the photograph, run every shard, merge; return the merged features."""
    settings = {"mode": "tile", "tile_size": tile_size, "overlap": overlap}
    job_input = {"image_url": link(photograph, folder / "split" / "input")}
    task = {"split": settings, "shard_count": shard_count, "max_shards": 32, "input": job_input}
    shards = run(BUILT_IN, "split.py", task, folder / "split")["shards"]
    assert len(shards) == shard_count

    results = []
    for index, shard in enumerate(shards):
        task_folder = folder / f"shard{index}"
        for tile in shard["tiles"]:
            link(folder / "split" / "output" / tile["path"], task_folder / "input" / "tiles")
        run(MODEL, "features.py", {**model["params"], **shard}, task_folder)
        output = folder / "merge" / "input" / f"{index:06}"
        output.mkdir(parents=True)
        link(task_folder / "output" / "output.json", output)
        results.append({"index": index, "status": "success", "output": {"path": f"{index:06}/output.json"}})
    return run(BUILT_IN, "merge.py", {"merge": {"strategy": "concat-json"}, "shards": results}, folder / "merge")


def in_order(features):
    return sorted(features, key=lambda feature: (feature["y"], feature["x"], feature["sigma"]))


@pytest.mark.parametrize(
    ("tile_size", "overlap", "shard_count"), [(256, 32, 16), (300, 32, 5), (117, 33, 7), (401, 64, 3), (2000, 32, 1)]
)
def test_split_and_merged_equals_one_unsplit_run_exactly(
    photograph, model, unsplit, tile_size, overlap, shard_count, tmp_path
):
    merged = run_split(photograph, model, tile_size, overlap, shard_count, tmp_path)
    assert in_order(merged) == unsplit


def test_without_overlap_the_features_differ(photograph, model, unsplit, tmp_path):
    """Otherwise the test above would prove nothing."""
    assert in_order(run_split(photograph, model, 256, 0, 4, tmp_path)) != unsplit


def test_the_reach_of_all_rules_together_is_within_the_overlap_of_the_model(model):
    import importlib.util

    spec = importlib.util.spec_from_file_location("features", MODEL / "features.py")
    features = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(features)
    filter_reach = int(features.TRUNCATE * features.SIGMAS[-1] + 0.5)  # as scipy rounds it
    suppression_reach = int(features.SUPPRESSION * features.SIGMAS[-1]) + 1
    assert filter_reach + 1 + suppression_reach <= model["multi_node"]["overlap"]


def test_the_photograph_has_several_hundred_features_in_order(unsplit):
    assert 500 < len(unsplit) < 2000
    assert unsplit == in_order(unsplit)
    brightest = max(unsplit, key=lambda feature: feature["strength"])
    assert (brightest["x"], brightest["y"]) == (516, 662)
    assert all(0 <= f["x"] < 1000 and 0 <= f["y"] < 872 and f["strength"] > 0.2 for f in unsplit)
