"""Make ``scene.png`` beside this file: a radar-like scene, fields under speckle noise. ``scene.py [SIDE] [FILE]``."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def scene(side: int) -> np.ndarray:
    """Return ``side`` × ``side`` grey pixels: fields of even brightness, each pixel times noise, as radar sees them."""
    random = np.random.default_rng(11)
    fields = random.integers(60, 190, (side // 90 + 1, side // 140 + 1)).astype(np.float32)
    even = fields.repeat(90, axis=0)[:side].repeat(140, axis=1)[:, :side]
    speckle = random.gamma(4, 1 / 4, (side, side)).astype(np.float32)
    return np.clip(even * speckle, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("scene.png")
    Image.fromarray(scene(side)).save(file, compress_level=1)
    print(file)
