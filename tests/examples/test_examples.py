"""Every example does what it says, through the real client, programs and sandbox, and as one unsplit run would."""

import importlib.util
import json
import math
import shutil
import subprocess
import sys
import tomllib
from collections import Counter

import numpy as np
import pytest
import pyvips
from scipy import ndimage

from meshnode.jobs.jobfile import load_job
from meshnode.jobs.modelfile import load_model
from meshnode.jobs.settings import effective
from tests.examples.conftest import EXAMPLES, with_job
from tests.meshnode.tasks.test_programs import PROGRAMS


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_satellite_the_filtered_scene_is_that_of_one_run(node, example):
    folder = example("satellite")
    subprocess.run([sys.executable, folder / "scene.py", "700"], check=True, capture_output=True)
    output = node.run(with_job(folder, shard_count=3, multi_node={"tile_size": 256}))
    scene = load(folder / "scene.py").scene(700)
    found = pyvips.Image.new_from_buffer(output, "").numpy()
    assert node.shards == 3
    assert np.array_equal(found, ndimage.median_filter(scene, size=5))


def test_prompts_come_back_in_order(node, example):
    output = node.run(example("prompts") / "job.yaml").decode()
    answers = [json.loads(line) for line in output.splitlines()]
    prompts = (EXAMPLES / "prompts/prompts.txt").read_text().splitlines()
    assert [answer["prompt"] for answer in answers] == prompts
    assert node.shards == 4
    assert answers[1]["completion"] == "the rabbit hole under the rabbit hole under the rabbit"


def test_document_the_passage_that_answers_is_found(node, example):
    folder = example("document")
    answer = "Why a word about gossip stands in the core: its dissemination by GossipSub would cost milliseconds. "
    text = "Something else entirely, about holders and their votes. " * 60
    (folder / "text.txt").write_text(text[:2000] + answer + text)
    found = json.loads(node.run(with_job(folder, input={"text_url": "text.txt"})))
    assert answer in found["text"]
    assert found["start"] <= 2000
    assert found["end"] - found["start"] == 600


def test_sweep_the_best_setting_wins(node, example):
    best = json.loads(node.run(example("sweep") / "job.yaml"))
    assert (best["degree"], best["ridge"]) in {(3, 0.0), (3, 0.01), (5, 0.0), (5, 0.01)}
    assert best["loss"] < 0.03


def test_beam_the_likeliest_of_the_candidates_wins(node, example):
    folder = example("beam")
    best = json.loads(node.run(folder / "job.yaml"))
    assert node.shards == 8
    assert best["text"].startswith("the rabbit ")
    alone = json.loads(node.run(with_job(folder, shard_count=1)))
    assert best["score"] >= alone["score"]


def test_ensemble_the_majority_names_the_language(node, example):
    assert json.loads(node.run(example("ensemble") / "job.yaml")) == {"language": "German"}
    assert node.shards == 5


def test_gradients_the_mean_over_shards_is_the_gradient_of_all(node, example):
    folder = example("gradients")
    averaged = json.loads(node.run(folder / "job.yaml"))
    assert node.shards == 4
    whole = json.loads(node.run(with_job(folder, shard_count=1)))
    assert averaged["gradient"] == pytest.approx(whole["gradient"])
    assert averaged["loss"] == pytest.approx(math.log(2))


def test_pi_is_about_pi(node, example):
    total = json.loads(node.run(example("pi") / "job.yaml"))
    assert total["darts"] == 6_400_000
    assert 4 * total["hits"] / total["darts"] == pytest.approx(math.pi, abs=0.003)


def test_thumbnails_are_listed(node, example):
    folder = example("thumbnails")
    images = []
    for index, side in enumerate((300, 200)):
        pyvips.Image.black(side, 100).write_to_file(str(folder / f"{index}.png"))
        images.append({"image_url": f"{index}.png"})
    links = json.loads(node.run(with_job(folder, input={"images": images})))
    sizes = [pyvips.Image.new_from_file(str(node.store.path(link["cid"]))) for link in links]
    assert [(image.width, image.height) for image in sizes] == [(96, 32), (96, 48)]


def test_wordcount_splits_and_merges_itself(node, example):
    folder = example("wordcount")
    text = "# One\nthe cat and the dog\n\n# Two\nthe bird\n"
    (folder / "text.md").write_text(text)
    counts = json.loads(node.run(with_job(folder, input={"text_url": "text.md"}, params={"top": 3})))
    assert node.shards == 2
    assert counts == dict(Counter({"the": 3, "and": 1, "bird": 1}))


def test_csv_plugin_groups_and_joins_a_table(example, tmp_path):
    """The plug-in is installed as pip would do it, but into a folder of its own, so the programs run without a node."""
    folder = example("csv_plugin")
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    metadata = folder / "meshnode_csv-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: meshnode-csv\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{key} = {value}\n" for group, found in points.items() for key, value in found.items())
    )
    job = load_job(folder / "job.yaml")
    settings = effective(load_model(folder).layer, job.layer, file="job.yaml")

    def run(program_folder, command, name, task, *files):
        """Run a program in the container contract; the folder of its output, and what it printed."""
        input_dir, output_dir = tmp_path / name / "input", tmp_path / name / "output"
        input_dir.mkdir(parents=True)
        output_dir.mkdir()
        for file in files:
            shutil.copy(file, input_dir)
        (input_dir / "input.json").write_text(json.dumps(task))
        paths = {"MESH_INPUT": str(input_dir), "MESH_OUTPUT": str(output_dir), "PYTHONPATH": str(folder)}
        done = subprocess.run(
            [sys.executable, command], cwd=program_folder, env=paths, capture_output=True, text=True, check=True
        )
        return output_dir, done.stdout

    table = {"table_url": {"path": "measurements.csv"}}
    task = {"split": settings.split.as_json(), "params": settings.params, "input": table}
    made, _ = run(PROGRAMS, "split.py", "split", task, folder / "measurements.csv")
    shards = json.loads((made / "output.json").read_bytes())["shards"]
    assert [shard["group"] for shard in shards] == ["harbour", "summit", "valley"]
    outputs = []
    for index, shard in enumerate(shards):
        _, printed = run(
            folder, "averages.py", f"shard{index}", {**settings.params, **shard}, made / shard["rows_url"]["path"]
        )
        outputs.append(tmp_path / f"{index}.json")
        outputs[-1].write_text(printed)
    listed = [{"index": i, "status": "success", "output": {"path": file.name}} for i, file in enumerate(outputs)]
    task = {"merge": {"strategy": settings.merge}, "params": settings.params, "shards": listed}
    made, _ = run(PROGRAMS, "merge.py", "merge", task, *outputs)
    assert (made / "output.csv").read_text().splitlines() == [
        "station,count,average",
        "harbour,3,14.0",
        "summit,2,-0.5",
        "valley,1,19.5",
    ]


def test_every_example_is_listed():
    readme = (EXAMPLES / "README.md").read_text()
    for folder in EXAMPLES.iterdir():
        if (folder / "job.yaml").exists():
            assert f"`{folder.name}/`" in readme
