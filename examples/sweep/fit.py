"""A parameter sweep: fit a polynomial with each setting, and measure it on points that it has not seen."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

task = json.loads(Path(os.environ["MESH_INPUT"], "input.json").read_bytes())
random = np.random.default_rng(5)
x = random.uniform(-1, 1, 80)
y = np.sin(3 * x) + random.normal(0, 0.1, 80)
seen, unseen = slice(0, 30), slice(30, 80)


def fit(setting: dict[str, Any]) -> dict[str, Any]:
    """Return the setting and its loss: the mean square of the errors on the points not seen."""
    powers = np.vander(x, setting["degree"] + 1)
    within = powers[seen]
    squares = within.T @ within + setting["ridge"] * np.eye(setting["degree"] + 1)
    weights = np.linalg.lstsq(squares, within.T @ y[seen], rcond=None)[0]
    return {**setting, "loss": float(np.mean((powers[unseen] @ weights - y[unseen]) ** 2))}


Path(os.environ["MESH_OUTPUT"], "output.json").write_text(json.dumps([fit(setting) for setting in task["items"]]))
