"""Find stars and galaxies: the bright blobs of an image at several scales, with their positions.

A blob is a local maximum, over position and scale, of the scale-normalised Laplacian of Gaussian
(T. Lindeberg, 1998). The answer must not depend on how the image was cut into tiles, to the last bit. So each
rule below looks only at a bounded neighbourhood, and the overlap of the tiles must cover their sum:

    the filter at the largest scale reaches    TRUNCATE * 5.04 = 20 pixels
    the test for a local maximum               1
    the suppression by a stronger neighbour    sqrt(2) * 5.04 = 7.1, so 8
                                               -- 29 pixels in all; model.yaml says 32

For the same reason the suppression is one step and not a chain (a candidate counts against its neighbours even
if a third one suppresses it), thresholds are absolute, and no value depends on the whole image. Where a tile
ends at the edge of the image, the filters mirror the same pixels as they do in the unsplit image.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here uses BLAS; do not start its threads

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Floats = NDArray[np.float64]

SIGMAS = tuple(2 ** (step / 3) for step in range(1, 8))
"""The scales, in pixels: 1.26 to 5.04, three to the octave. A blob of radius r is strongest at r / sqrt(2)."""

TRUNCATE = 4.0
"""Where the Gaussians are cut off, in sigmas."""

SUPPRESSION = math.sqrt(2)
"""Of two blobs closer than this times the larger sigma (the larger one's radius), only the stronger stays."""

Box = dict[str, int]
Candidate = tuple[float, float, int, int]  # (-strength, sigma, y, x): sorts the strongest first, without ties


def brightness(path: Path) -> Floats:
    """Return the image as floats from 0 to 1, the plain mean of its colours."""
    with Image.open(path) as image:
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.float64) / 65535
        if image.mode == "L":
            return np.asarray(image).astype(np.float64) / 255
        colours = np.asarray(image.convert("RGB")).astype(np.float64)
    return (colours[..., 0] + colours[..., 1] + colours[..., 2]) / (3 * 255)


def find_candidates(pixels: Floats, area: Box, threshold: float) -> list[Candidate]:
    """Return every local maximum of the filter response above ``threshold``, strongest first."""
    response = np.stack([-(s**2) * ndimage.gaussian_laplace(pixels, s, truncate=TRUNCATE) for s in SIGMAS])
    neighbourhood = ndimage.maximum_filter(response, size=3, mode="constant", cval=-np.inf)
    found = np.argwhere((response == neighbourhood) & (response > threshold)).tolist()
    return sorted((-float(response[k, y, x]), SIGMAS[k], y + area["y"], x + area["x"]) for k, y, x in found)


def suppress(candidates: list[Candidate]) -> list[Candidate]:
    """Drop every candidate that has a stronger one nearby. ``candidates`` come strongest first."""
    cell = math.ceil(SUPPRESSION * SIGMAS[-1])  # so a rival is never further away than the next cell
    cells: dict[tuple[int, int], list[Candidate]] = {}
    kept = []
    for candidate in candidates:
        _, sigma, y, x = candidate
        rivals = (
            rival
            for row in range(y // cell - 1, y // cell + 2)
            for column in range(x // cell - 1, x // cell + 2)
            for rival in cells.get((row, column), ())
        )
        if all(math.hypot(y - r[2], x - r[3]) > SUPPRESSION * max(sigma, r[1]) for r in rivals):
            kept.append(candidate)
        cells.setdefault((y // cell, x // cell), []).append(candidate)
    return kept


def find_features(path: Path, area: Box, core: Box, threshold: float) -> list[dict[str, float]]:
    """Return the features whose centre lies in ``core``; the image at ``path`` shows ``area``."""
    features = []
    for strength, sigma, y, x in suppress(find_candidates(brightness(path), area, threshold)):
        if 0 <= x - core["x"] < core["width"] and 0 <= y - core["y"] < core["height"]:
            features.append({"x": x, "y": y, "sigma": sigma, "strength": -strength})
    return features


def whole(path: Path) -> dict[str, Any]:
    """Return the image at ``path`` as a single tile."""
    with Image.open(path) as image:
        area = {"x": 0, "y": 0, "width": image.width, "height": image.height}
    return {"path": path, **area, "core": area}


def main() -> None:
    folder = Path(os.environ["MESH_INPUT"])
    task = json.loads((folder / "input.json").read_bytes())
    tiles = task["tiles"] if "tiles" in task else [whole(folder / task["image_url"]["path"])]
    features = [
        feature
        for tile in tiles
        for feature in find_features(folder / tile["path"], tile, tile["core"], task["threshold"])
    ]
    features.sort(key=lambda feature: (feature["y"], feature["x"], feature["sigma"]))
    (Path(os.environ["MESH_OUTPUT"]) / "output.json").write_text(json.dumps(features))


if __name__ == "__main__":
    main()
