"""Find the passage of a long document that answers a question best: each shard ranks its windows, the best one wins.

The score is how many of the question's words a window holds, each worth more the longer it is, and half as much for
being there again. Long documents never reach a model whole; this is what comes before one that reads the passage.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path

task = json.loads(Path(os.environ["MESH_INPUT"], "input.json").read_bytes())
asked = {word for word in re.findall(r"\w+", task["question"].lower()) if len(word) > 3}


def score(text: str) -> float:
    found = Counter(word for word in re.findall(r"\w+", text.lower()) if word in asked)
    return sum(len(word) * (2 - 0.5 ** (count - 1)) for word, count in found.items())


ranked = [{**window, "score": score(window["text"])} for window in task["windows"]]
Path(os.environ["MESH_OUTPUT"], "output.json").write_text(json.dumps(max(ranked, key=lambda one: one["score"])))
