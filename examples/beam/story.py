"""Beam search, one beam a machine: each candidate explores from its own seed, and the likeliest text wins.

A beam keeps the ``width`` likeliest texts, each lengthened by words that are drawn with its seed, from a bigram model
of ``corpus.txt``. The score is the mean log-likelihood of a word. A round of a tree search is a job like this one,
and the next round starts from its best node.
"""

import json
import math
import os
import random
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

task = json.loads(Path(os.environ["MESH_INPUT"], "input.json").read_bytes())
draw = random.Random(task["candidate"]["seed"])
words = Path("corpus.txt").read_text().lower().replace(",", "").replace(".", "").replace("?", "").split()
follow: dict[str, Counter[str]] = defaultdict(Counter)
for word, after in pairwise(words):
    follow[word][after] += 1

Beam = tuple[float, list[str]]  # log-likelihood, text
beams: list[Beam] = [(0.0, task["prompt"].lower().split())]
for _ in range(task["words"]):
    longer: list[Beam] = []
    for likelihood, text in beams:
        known = follow.get(text[-1])
        if not known:
            continue
        for word in set(draw.choices(list(known), list(known.values()), k=task["width"])):
            longer.append((likelihood + math.log(known[word] / known.total()), [*text, word]))
    if not longer:
        break
    beams = sorted(longer, key=lambda beam: (-beam[0], beam[1]))[: task["width"]]
likelihood, text = beams[0]
made = max(1, len(text) - len(task["prompt"].split()))
result = {"text": " ".join(text), "score": likelihood / made, "candidate": task["candidate"]["index"]}
Path(os.environ["MESH_OUTPUT"], "output.json").write_text(json.dumps(result))
