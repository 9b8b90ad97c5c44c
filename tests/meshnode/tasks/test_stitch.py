"""Tiles put back together: the image that was split, pixel for pixel, and in bounded memory however large it is."""

import json
import subprocess
import sys

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.tasks.splitmerge.merge import merge
from meshnode.tasks.splitmerge.split import split
from tests.meshnode.tasks.test_programs import PROGRAMS

MEMORY_KIB_MAX = 500 * 10**6 // 1024


def pixels_of(dtype, bands, width, height):
    shape = (height, width) if bands == 1 else (height, width, bands)
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def outputs_of(split_folders, folders, shards):
    """What the identity model makes of the shards, as a merge reads it."""
    listed = []
    for index, shard in enumerate(shards):
        tiles = []
        for tile in shard["tiles"]:
            cid = tile["path"].replace("/", "-")
            target = folders.input / "files" / cid
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                target.hardlink_to(split_folders.output / tile["path"])
            rest = {key: value for key, value in tile.items() if key != "path"}
            tiles.append({**rest, "cid": cid, "size": target.stat().st_size})
        output = folders.add(f"outputs/{index}.json", json.dumps({"tiles": tiles}).encode())
        listed.append({"index": index, "status": "success", "output": output})
    return {"merge": {"strategy": "stitch"}, "shards": listed}


def split_and_stitch(make_folders, pixels, tile_size, overlap, shard_count):
    first, second = make_folders(), make_folders()
    interpretation = {1: "b-w", 2: "b-w", 3: "srgb", 4: "srgb"}[1 if pixels.ndim == 2 else pixels.shape[2]]
    if pixels.dtype == np.uint16:
        interpretation = {"b-w": "grey16", "srgb": "rgb16"}[interpretation]
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=interpretation)
    image.write_to_file(str(first.input / "image.tif"))
    how = {"mode": "tile", "tile_size": tile_size, "overlap": overlap}
    job_input = {"image_url": {"path": "image.tif"}}
    shards = first.run(split, {"split": how, "shard_count": shard_count, "input": job_input})["shards"]
    merge(outputs_of(first, second, shards), second.input, second.output)
    return pyvips.Image.new_from_file(str(second.output / "output.tif"))


@settings(max_examples=30)
@given(
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(1, 4),
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(7, 90),
    st.integers(0, 20),
    st.integers(1, 9),
)
def test_stitch_undoes_tile(make_folders, dtype, bands, width, height, tile_size, overlap, shard_count):
    pixels = pixels_of(dtype, bands, width, height)
    found = split_and_stitch(make_folders, pixels, tile_size, overlap, shard_count)
    assert found.interpretation in ("b-w", "srgb", "grey16", "rgb16")
    assert np.array_equal(found.numpy().reshape(pixels.shape), pixels)


def tile_of(folders, name, width, height, place):
    pyvips.Image.black(width, height).write_to_file(str(folders.input / f"{name}.png"))
    return {"path": f"{name}.png", "size": 1, "x": 0, "y": 0, "width": width, "height": height} | place


def refusal(folders, tiles):
    output = folders.add("o.json", json.dumps({"tiles": tiles}).encode())
    shards = [{"index": 0, "status": "success", "output": output}]
    return folders.refusal(merge, {"merge": {"strategy": "stitch"}, "shards": shards})


@pytest.mark.parametrize(
    ("tiles", "sentence"),
    [
        ([("a", 4, 4, {}), ("b", 4, 4, {"x": 5})], "tiles[1]: the cores of the tiles do not fit together at x 4, y 0"),
        ([("a", 4, 4, {}), ("b", 4, 4, {"x": 3})], "tiles[1]: the cores of the tiles do not fit together at x 4, y 0"),
        ([("a", 4, 4, {}), ("b", 4, 3, {"x": 4})], "tiles[1]: the cores of the tiles do not fit together at x 4, y 0"),
        ([("a", 4, 4, {}), ("b", 3, 4, {"y": 4})], "tiles[1]: the cores of the tiles do not fit together at x 3, y 4"),
        ([("a", 4, 4, {"y": 1})], "tiles[0]: the cores of the tiles do not fit together at x 0, y 0"),
        ([("a", 4, 4, {"width": 5})], "tiles[0]: the image has 4 × 4 pixels, and the tile says 5 × 4"),
        ([("a", 4, 4, {"x": -1})], "tiles[0].x: must be at least 0, got -1"),
        (
            [("a", 4, 4, {"core": {"x": 0, "y": 0, "width": 5, "height": 4}})],
            "tiles[0]: the core lies outside of the tile",
        ),
        ([("a", 4, 4, {"core": 3})], "tiles[0].core: expected an object, got 3"),
    ],
)
def test_tiles_that_are_no_image_together_are_refused(folders, tiles, sentence):
    listed = [tile_of(folders, name, width, height, place) for name, width, height, place in tiles]
    assert refusal(folders, listed) == f"the output of shard 0: {sentence}"


def test_a_tile_of_another_kind_or_no_image_is_refused(folders):
    grey = tile_of(folders, "grey", 4, 4, {})
    colour = tile_of(folders, "colour", 4, 4, {"x": 4})
    pyvips.Image.black(4, 4, bands=3).copy(interpretation="srgb").write_to_file(str(folders.input / "colour.png"))
    assert refusal(folders, [grey, colour]) == (
        "the output of shard 0: tiles[1]: 3 bands of uchar do not fit to the first tile's 1 of uchar"
    )
    (folders.input / "grey.png").write_bytes(b"no image")
    assert refusal(folders, [grey]) == "the output of shard 0: tiles[0]: the file is not a JPEG, PNG or TIFF image"


WITH_PEAK_MEMORY = (
    "import re, runpy, sys\n"
    "try:\n"
    "    runpy.run_path(sys.argv[1], run_name='__main__')\n"
    "finally:\n"
    "    print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])\n"
)


def start(script, task, folders):
    """Run a program as a node does; its peak memory in KiB."""
    (folders.input / "input.json").write_text(json.dumps(task))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROGRAMS)!r})\n{WITH_PEAK_MEMORY}", script],
        cwd=PROGRAMS,
        env={"MESH_INPUT": str(folders.input), "MESH_OUTPUT": str(folders.output), "VIPS_CONCURRENCY": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def large_image(path, side):
    """A colour image in which no two tiles are alike, though it is quick to pack: a ramp, and a mark at each tile."""
    place = pyvips.Image.xyz(side, side)
    ramp = (place[0] / 64 + place[1] / 64).cast("uchar", shift=False)
    number = ((place[1] / 512).floor() * 41 + (place[0] / 512).floor()).cast("ushort")
    colours = ramp.bandjoin([(number % 256).cast("uchar"), (number / 256).cast("uchar")])
    colours.copy(interpretation="srgb").write_to_file(str(path), compression="none")


def test_an_image_of_1_2_gigabytes_goes_through_in_bounded_memory(make_folders):
    """20,000 × 20,000 pixels, 1,600 tiles, 16 shards: each program keeps under 500 MB."""
    first, second = make_folders(), make_folders()
    large_image(first.input / "image.tif", 20_000)
    how = {"mode": "tile", "tile_size": 512, "overlap": 16}
    task = {"split": how, "shard_count": 16, "input": {"image_url": {"path": "image.tif"}}}
    assert start("split.py", task, first) < MEMORY_KIB_MAX
    shards = json.loads((first.output / "output.json").read_bytes())["shards"]
    assert [len(shard["tiles"]) for shard in shards] == [100] * 16

    assert start("merge.py", outputs_of(first, second, shards), second) < MEMORY_KIB_MAX
    whole = pyvips.Image.new_from_file(str(first.input / "image.tif"), access="sequential")
    found = pyvips.Image.new_from_file(str(second.output / "output.tif"), access="sequential")
    assert (found.width, found.height, found.bands) == (20_000, 20_000, 3)
    assert (whole != found).max() == 0
    for folders in (first, second):  # they are large
        for file in (*folders.input.rglob("*"), *folders.output.rglob("*")):
            if file.is_file():
                file.unlink()
