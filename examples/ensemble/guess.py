"""An ensemble that votes: each member guesses a text's language by a random half of the letter pairs."""

import json
import os
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

SAMPLES = {
    "English": "the rabbit took a watch out of its pocket and looked at it and then hurried on down the large hole",
    "German": "das kaninchen zog eine uhr aus seiner westentasche und sah darauf und eilte dann weiter in das loch",
    "French": "le lapin tira une montre de sa poche et la regarda puis se hâta de courir dans le grand terrier",
    "Spanish": "el conejo sacó un reloj de su bolsillo y lo miró y luego echó a correr hacia la gran madriguera",
}


def pairs(text: str) -> Counter[str]:
    """How often each pair of letters stands in a text."""
    plain = "".join(letter if letter.isalpha() else " " for letter in text.lower())
    return Counter(a + b for a, b in pairwise(plain) if (a + b).strip())


task = json.loads(Path(os.environ["MESH_INPUT"], "input.json").read_bytes())
samples = {language: pairs(sample) for language, sample in SAMPLES.items()}
every = sorted({pair for sample in samples.values() for pair in sample})
known = random.Random(task["candidate"]["seed"]).sample(every, len(every) // 2)
text = pairs(task["text"])
likeness = {
    language: sum(text[pair] * sample[pair] / sample.total() for pair in known) for language, sample in samples.items()
}
guess = {"language": max(likeness, key=lambda language: likeness[language])}
Path(os.environ["MESH_OUTPUT"], "output.json").write_text(json.dumps(guess))
