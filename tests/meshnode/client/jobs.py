"""Jobs and models as a user would write them, in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyvips

MODEL = """\
model_id: features-v1
command: [python3, features.py]
resources: {cpu: 1, memory: 1GiB}
params: {threshold: 0.2}
multi_node: {split_mode: tile, tile_size: 100, overlap: 10, merge_strategy: concat-json, max_shards: 32}
"""
JOB: dict[str, Any] = {"model": "./model", "input": {"image_url": "photo.png"}, "shard_count": 4}


def write_job(folder: Path, **changes: Any) -> Path:
    """A tile job of four shards with its model and photograph; ``changes`` replace keys, None removes them."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "model.yaml").write_text(MODEL)
    (model / "features.py").write_text("print('[]')\n")
    pyvips.Image.black(300, 200).pngsave(str(folder / "photo.png"))
    path = folder / "job.json"
    path.write_text(json.dumps({key: value for key, value in {**JOB, **changes}.items() if value is not None}))
    return path
