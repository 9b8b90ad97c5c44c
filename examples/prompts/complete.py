"""Complete prompts, a batch at a time, with a language model small enough to be trained on the spot.

It is a bigram model of ``corpus.txt``: each word is followed by the one that follows it most often there. Instead of it
any model can stand here that takes a list of prompts; what it writes is joined in the order of the prompts.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

INPUT = Path(os.environ["MESH_INPUT"])


def bigrams() -> dict[str, Counter[str]]:
    """How often each word follows each other one."""
    words = Path("corpus.txt").read_text().lower().replace(",", "").replace(".", "").replace("?", "").split()
    follow: dict[str, Counter[str]] = defaultdict(Counter)
    for word, after in pairwise(words):
        follow[word][after] += 1
    return follow


def complete(prompt: str, count: int, follow: dict[str, Counter[str]]) -> str:
    """Return the prompt and up to ``count`` words more; of words that are as likely, the first in the alphabet."""
    words = prompt.split()
    for _ in range(count):
        after = follow.get(words[-1].lower()) if words else None
        if not after:
            break
        words.append(min(after, key=lambda word: (-after[word], word)))
    return " ".join(words)


task = json.loads((INPUT / "input.json").read_bytes())
follow = bigrams()
lines: Iterable[str] = task["lines"]
if isinstance(lines, dict):  # a share of more than a mebibyte comes as a file
    lines = (line.rstrip("\n") for line in (INPUT / lines["path"]).open())
with Path(os.environ["MESH_OUTPUT"], "output.jsonl").open("w") as output:
    for line in lines:
        completion = complete(line, task["words"], follow)
        output.write(json.dumps({"prompt": line, "completion": completion}) + "\n")
