"""A worker in data-parallel training: the gradient of the loss over its own samples, for the weights that it is given.

The model is a logistic regression; sample n is made from the number n, where a real one would be read from a file.
"""

import json
import os
from pathlib import Path

import numpy as np

task = json.loads(Path(os.environ["MESH_INPUT"], "input.json").read_bytes())
numbers = range(task["range"]["start"], task["range"]["stop"], task["range"]["step"])
samples = np.array([np.random.default_rng(number).normal(0, 1, 3) for number in numbers])
inputs = np.column_stack([samples[:, :2], np.ones(len(samples))])
labels = (2 * samples[:, 0] - 3 * samples[:, 1] + 0.5 + 0.3 * samples[:, 2] > 0).astype(float)

guesses = 1 / (1 + np.exp(-inputs @ np.array(task["weights"])))
right = np.where(labels == 1, guesses, 1 - guesses)
result = {
    "gradient": (inputs.T @ (guesses - labels) / len(labels)).tolist(),
    "loss": float(-np.log(np.maximum(right, 1e-12)).mean()),
    "accuracy": float((right > 0.5).mean()),
}
Path(os.environ["MESH_OUTPUT"], "output.json").write_text(json.dumps(result))
