"""Make a thumbnail of an image. The output is the picture itself, and the job's output a list of links to them all."""

import json
import os
from pathlib import Path

from PIL import Image

task = json.loads(Path(os.environ["MESH_INPUT"], "input.json").read_bytes())
(item,) = task["items"]
with Image.open(Path(os.environ["MESH_INPUT"], item["image_url"]["path"])) as image:
    image.thumbnail((task["side"], task["side"]))
    image.convert("RGB").save(Path(os.environ["MESH_OUTPUT"], "output.jpg"), quality=85)
