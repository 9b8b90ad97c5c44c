"""Train by gradient averaging: a job a round, whose output is the mean of its shards' gradients.

``python examples/gradients/train.py [--rounds N] [--api URL]``. No machine has all samples; the weights go out with
each job, and the mean gradient comes back as its one output.
"""

import argparse
import json
import tempfile
from pathlib import Path

import yaml

from meshnode.client.client import Client

HERE = Path(__file__).parent
RATE = 4.0


def train(client: Client, rounds: int) -> list[dict[str, float]]:
    """Run so many rounds; return the loss and accuracy of each, and print them."""
    job = yaml.safe_load((HERE / "job.yaml").read_text())
    job["model"] = str(HERE.resolve())
    history = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            file = Path(folder, "job.json")
            file.write_text(json.dumps(job))
            ended = client.wait(client.submit(file).full_id)
            if ended.status != "success":
                raise SystemExit(f"round {number}: {ended.error}")
            _, pieces = client.output(ended.full_id)
            result = json.loads(b"".join(pieces))
            weights = zip(job["input"]["weights"], result["gradient"], strict=True)
            job["input"]["weights"] = [weight - RATE * slope for weight, slope in weights]
            history.append({"loss": result["loss"], "accuracy": result["accuracy"]})
            print(f"round {number}: loss {result['loss']:.4f}, accuracy {result['accuracy']:.3f}")
    return history


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--api")
    arguments = parser.parse_args()
    with Client.to_node(arguments.api) as connected:
        train(connected, arguments.rounds)
