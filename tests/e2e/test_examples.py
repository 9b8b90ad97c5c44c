"""Examples of splits and merges on a mesh of real nodes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyvips
from scipy import ndimage

from meshnode.devmesh import DevMesh
from tests.e2e.conftest import Workshop, infra
from tests.examples.conftest import EXAMPLES, with_job


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def output_of(mesh: DevMesh, job: Path) -> tuple[int, bytes]:
    """Hand in the job to one node and fetch its output from another; also how many shards there were."""
    with mesh.nodes[0].client() as client:
        ended = client.wait(client.submit(job).full_id)
        assert ended.status == "success", ended
        assert ended.succeeded == ended.total_shards
    with mesh.nodes[1].client() as client:
        _, pieces = client.output(ended.full_id)
        return ended.total_shards, b"".join(pieces)


def test_tiles_are_stitched_by_whoever_wins_the_merge(mesh: DevMesh, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / "satellite", tmp_path / "satellite")
    subprocess.run([sys.executable, folder / "scene.py", "1500"], check=True, capture_output=True)
    shards, output = output_of(mesh, with_job(folder, shard_count=4, multi_node={"tile_size": 256}))
    (tmp_path / "found.tif").write_bytes(output)
    scene = load(folder / "scene.py").scene(1500)
    assert shards == 4
    found = pyvips.Image.new_from_file(str(tmp_path / "found.tif")).numpy()
    assert np.array_equal(found, ndimage.median_filter(scene, size=5))


def test_a_file_of_prompts_comes_back_in_order(mesh: DevMesh) -> None:
    shards, output = output_of(mesh, EXAMPLES / "prompts" / "job.yaml")
    asked = (EXAMPLES / "prompts" / "prompts.txt").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in output.decode().splitlines()] == asked
    assert shards == 4


def test_rounds_of_gradient_averaging_train_a_model(mesh: DevMesh) -> None:
    with mesh.nodes[2].client() as client:
        history = load(EXAMPLES / "gradients" / "train.py").train(client, rounds=4)
    losses = [entry["loss"] for entry in history]
    assert losses == sorted(losses, reverse=True)
    assert history[-1]["accuracy"] > 0.9


def test_more_shards_than_tasks(mesh: DevMesh, workshop: Workshop) -> None:
    workshop.model(
        "import json, os, pathlib\n"
        "task = json.loads(pathlib.Path(os.environ['MESH_INPUT'], 'input.json').read_text())\n"
        "print(json.dumps({'sum': task['range']['start'], 'count': 1}))\n",
        multi_node={"split_mode": "range", "merge_strategy": "sum"},
    )
    shards, output = output_of(mesh, workshop.job(shards=201, input={"range": {"stop": 201}}))
    assert shards == 201
    assert json.loads(output) == {"sum": sum(range(201)), "count": 201}


def test_the_files_that_an_output_links_to_are_fetched_with_it(mesh: DevMesh, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / "thumbnails", tmp_path / "thumbnails")
    for side in (300, 200):
        pyvips.Image.black(side, 100).write_to_file(str(folder / f"{side}.png"))
    job = with_job(folder, input={"images": [{"image_url": f"{side}.png"} for side in (300, 200)]})
    with mesh.nodes[0].client() as client:
        ended = client.wait(client.submit(job).full_id)
    found, files = tmp_path / "links.json", tmp_path / "files"
    infra("output", "--job", ended.full_id, "-o", found, "--files", files, "--json", INFRA_API=mesh.nodes[3].api).json()
    links = json.loads(found.read_bytes())
    pictures = [pyvips.Image.new_from_file(str(files / link["cid"])) for link in links]
    assert [(picture.width, picture.height) for picture in pictures] == [(96, 32), (96, 48)]


def test_a_model_splits_and_merges_itself(mesh: DevMesh) -> None:
    _, output = output_of(mesh, EXAMPLES / "wordcount" / "job.yaml")
    counts = json.loads(output)
    assert len(counts) == 20
    assert counts["the"] == max(counts.values())


def test_a_job_whose_plugin_nobody_has_waits_and_says_why(mesh: DevMesh) -> None:
    with mesh.nodes[0].client() as client:
        job = client.submit(EXAMPLES / "csv_plugin" / "job.yaml").full_id
        waiting = next(view for view in client.watch(job) if view.refusals)
        assert all(refusal.reason == "merges/csv.table plug-in wanted, none here" for refusal in waiting.refusals), (
            waiting
        )
        client.cancel(job)
