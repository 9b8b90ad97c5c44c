"""The tile split: where tiles lie, what pixels they hold, and which files are no images."""

import io

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from meshnode.tasks.splitmerge import raster
from meshnode.tasks.splitmerge.split import split
from meshnode.tasks.splitmerge.tiles import Grid


def pixels_of(kind, height=90, width=130):
    """Return a random image: ``kind`` is a sample type and a number of bands."""
    dtype, bands = kind
    shape = (height, width) if bands == 1 else (height, width, bands)
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def encoded(pixels, suffix):
    bands = 1 if pixels.ndim == 2 else pixels.shape[2]
    interpretation = (
        ("grey16" if bands < 3 else "rgb16") if pixels.dtype == np.uint16 else ("b-w" if bands < 3 else "srgb")
    )
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=interpretation)
    return image.write_to_buffer(suffix)


def stored(path):
    """Return the pixels of an image file as libvips reads them."""
    return pyvips.Image.new_from_file(str(path)).numpy()


def tile_task(file, size, overlap, shard_count=None, max_shards=None):
    return {
        "split": {"mode": "tile", "tile_size": size, "overlap": overlap},
        "shard_count": shard_count,
        "max_shards": max_shards,
        "input": {"image_url": file, "threshold": 0.5},
    }


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 90), st.integers(0, 90))
def test_cores_partition_the_image_and_areas_are_cores_widened_within_it(width, height, size, overlap):
    grid = Grid(width, height, size, overlap)
    covered = np.zeros((height, width), dtype=int)
    for row in range(grid.rows):
        for column in range(grid.columns):
            core, area = grid.core(column, row), grid.area(column, row)
            covered[core.y : core.y + core.height, core.x : core.x + core.width] += 1
            assert area.x == max(0, core.x - overlap)
            assert area.y == max(0, core.y - overlap)
            assert area.x + area.width == min(width, core.x + core.width + overlap)
            assert area.y + area.height == min(height, core.y + core.height + overlap)
    assert (covered == 1).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", [(t, bands) for t in (np.uint8, np.uint16) for bands in (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize(("size", "overlap"), [(32, 8), (20, 33)])
def test_tiles_hold_exactly_the_pixels_of_their_area(folders, kind, suffix, size, overlap):
    pixels = pixels_of(kind)
    file = folders.add(f"image{suffix}", encoded(pixels, suffix))
    shards = folders.run(split, tile_task(file, size, overlap))["shards"]
    assert len(shards) == -(-130 // size) * -(-90 // size)
    for shard in shards:
        assert shard.keys() == {"threshold", "tiles"}
        for tile in shard["tiles"]:
            x, y, width, height = tile["x"], tile["y"], tile["width"], tile["height"]
            found = stored(folders.output / tile["path"])
            assert found.dtype == pixels.dtype
            assert np.array_equal(found, pixels[y : y + height, x : x + width])


def test_a_jpeg_is_decoded_to_the_same_pixels_as_elsewhere(folders):
    buffer = io.BytesIO()
    Image.fromarray(pixels_of((np.uint8, 3))).save(buffer, "JPEG", quality=85)
    (shard,) = folders.run(split, tile_task(folders.add("a.jpg", buffer.getvalue()), 500, 0))["shards"]
    found = np.asarray(Image.open(folders.output / shard["tiles"][0]["path"]))
    assert np.array_equal(found, np.asarray(Image.open(buffer)))


def test_tiles_are_in_row_major_order_and_neighbours_share_a_shard(folders):
    file = folders.add("a.png", encoded(pixels_of((np.uint8, 1)), ".png"))
    shards = folders.run(split, tile_task(file, 50, 4, shard_count=4))["shards"]
    assert [[(t["core"]["x"], t["core"]["y"]) for t in shard["tiles"]] for shard in shards] == [
        [(0, 0)],
        [(50, 0), (100, 0)],
        [(0, 50), (50, 50)],
        [(100, 50)],
    ]
    assert shards[2]["tiles"][1] == {
        "path": "tiles/000004.png",
        "x": 46,
        "y": 46,
        "width": 58,
        "height": 44,
        "core": {"x": 50, "y": 50, "width": 50, "height": 40},
    }


def damaged_jpeg():
    buffer = io.BytesIO()
    Image.fromarray(pixels_of((np.uint8, 3), 300, 300)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    data[20_000:21_000] = bytes(byte ^ 0x55 for byte in data[20_000:21_000])
    return bytes(data)


def halved(pixels, suffix):
    data = encoded(pixels, suffix)
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is not a JPEG, PNG or TIFF image"),
        (b"just some text, no image", "the file is not a JPEG, PNG or TIFF image"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
            "the file is not a JPEG, PNG or TIFF image",
        ),
        (halved(pixels_of((np.uint8, 3)), ".jpg"), "the image is damaged: premature end of JPEG image"),
        (halved(pixels_of((np.uint8, 3), 400, 400), ".png"), "the image is damaged: libpng read error"),
        (halved(pixels_of((np.uint8, 3), 400, 400), ".tif"), "the file is not a JPEG, PNG or TIFF image"),
        (damaged_jpeg(), "the image is damaged: Corrupt JPEG data: "),
    ],
    ids=["empty", "text", "svg", "half-jpeg", "half-png", "half-tiff", "flipped-jpeg"],
)
def test_what_is_no_whole_image_is_refused_in_a_sentence_that_names_the_key(folders, data, sentence):
    said = folders.refusal(split, tile_task(folders.add("a", data), 64, 0))
    assert said.startswith(f"input.image_url: {sentence}")
    assert "\n" not in said


def test_an_image_of_absurd_size_is_refused_before_it_is_decoded(folders, monkeypatch):
    monkeypatch.setattr(raster, "PIXELS_MAX", 130 * 90 - 1)
    file = folders.add("a.png", encoded(pixels_of((np.uint8, 1)), ".png"))
    assert folders.refusal(split, tile_task(file, 64, 0)) == (
        "input.image_url: the image has 130 × 90 pixels, more than 11699"
    )


def test_pixels_that_png_cannot_hold_are_refused(folders):
    image = pyvips.Image.new_from_array(np.zeros((8, 8), np.float32))
    said = folders.refusal(split, tile_task(folders.add("a.tif", image.write_to_buffer(".tif")), 64, 0))
    assert said == (
        "input.image_url: 1 bands of float b-w cannot be cut into lossless tiles; "
        "expected 8- or 16-bit grey or RGB, with or without alpha"
    )


@pytest.mark.parametrize(
    ("size", "overlap", "shard_count", "max_shards", "sentence"),
    [
        (0, 0, None, None, "split.tile_size: must be at least 1, got 0"),
        (64, -1, None, None, "split.overlap: must be at least 0, got -1"),
        (10, 0, 40, 32, "117 tiles would make 40 shards, more than max_shards, 32"),
        (
            10,
            0,
            None,
            32,
            "117 tiles would make 117 shards, more than max_shards, 32; "
            "give a shard_count to put several into one shard",
        ),
    ],
)
def test_tile_settings_that_make_no_sense(folders, size, overlap, shard_count, max_shards, sentence):
    file = folders.add("a.png", encoded(pixels_of((np.uint8, 1)), ".png"))
    assert folders.refusal(split, tile_task(file, size, overlap, shard_count, max_shards)) == sentence
    assert list(folders.output.iterdir()) == []


def test_too_many_tiles_are_refused(folders):
    file = folders.add("a.png", encoded(np.zeros((400, 400), np.uint8), ".png"))
    assert folders.refusal(split, tile_task(file, 1, 0, shard_count=4)) == (
        "split.tile_size: 1 cuts the image into 160000 tiles, more than 9000"
    )
