"""Monte Carlo: throw darts at a square and count those within the circle; 4 × hits / darts of the sum is about pi."""

import json
import os
from pathlib import Path

import numpy as np

DARTS = 100_000

task = json.loads(Path(os.environ["MESH_INPUT"], "input.json").read_bytes())
hits = darts = 0
for batch in range(task["range"]["start"], task["range"]["stop"], task["range"]["step"]):
    x, y = np.random.default_rng(batch).uniform(-1, 1, (2, DARTS))
    hits += int(np.count_nonzero(x * x + y * y < 1))
    darts += DARTS
Path(os.environ["MESH_OUTPUT"], "output.json").write_text(json.dumps({"hits": hits, "darts": darts}))
