"""Take the speckle out of an image with a median filter, tile by tile.

The filter looks ``radius`` pixels around each pixel, and the tiles overlap by more than that: so a core comes out just
as it would in one run over the whole image.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

INPUT, OUTPUT = Path(os.environ["MESH_INPUT"]), Path(os.environ["MESH_OUTPUT"])


def despeckled(tile: dict[str, Any], radius: int, name: str) -> dict[str, Any]:
    """Filter a tile; return it as ``stitch`` wants it: the core alone, and where it belongs."""
    core = tile["core"]
    with Image.open(INPUT / tile["path"]) as image:
        pixels = np.asarray(image)
    filtered = ndimage.median_filter(pixels, size=2 * radius + 1, axes=(0, 1))
    x, y = core["x"] - tile["x"], core["y"] - tile["y"]
    Image.fromarray(filtered[y : y + core["height"], x : x + core["width"]]).save(OUTPUT / name, compress_level=1)
    return {"path": name, **core}


task = json.loads((INPUT / "input.json").read_bytes())
tiles = [despeckled(tile, task["radius"], f"{index}.png") for index, tile in enumerate(task["tiles"])]
(OUTPUT / "output.json").write_text(json.dumps({"tiles": tiles}))
