"""In which language is each line? A naive Bayes classifier over runs of three characters.

Loading means importing numpy and counting the samples, which takes hundreds of times as long as a line: so the model
is loaded once (`serve: warm` in model.yaml) and `serve` asks it for shard after shard. Tried by hand, without a mesh,
it answers a single input:

    mkdir -p /tmp/lines && echo '{"lines": ["Guten Tag, wie geht es Ihnen?"]}' > /tmp/lines/input.json
    cd examples/languages && PYTHONPATH=../../meshnode/runtimes/helpers \
        MESH_INPUT=/tmp/lines MESH_OUTPUT=/tmp/lines python languages.py && cat /tmp/lines/output.json
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from meshmodel import serve

SAMPLES = Path(__file__).with_name("samples.json")  # the Universal Declaration of Human Rights, articles 1 to 6


def runs_of_three(text: str) -> list[str]:
    padded = "  " + " ".join("".join(c if c.isalpha() else " " for c in text.lower()).split()) + "  "
    return [padded[i : i + 3] for i in range(len(padded) - 2)]


class Classifier:
    def __init__(self, samples: dict[str, str]) -> None:
        self.languages = sorted(samples)
        counts = [Counter(runs_of_three(samples[language])) for language in self.languages]
        self.column = {run: n for n, run in enumerate(sorted(set().union(*counts)))}
        table = np.array([[count[run] for run in self.column] for count in counts]) + 0.5  # nothing is impossible
        self.weights = np.log(table / table.sum(axis=1, keepdims=True))

    def __call__(self, line: str) -> dict[str, object]:
        known = [self.column[run] for run in runs_of_three(line) if run in self.column]
        if not known:
            return {"line": line, "language": None, "certainty": 0.0}
        scores = self.weights[:, known].sum(axis=1)
        likely = np.exp(scores - scores.max())
        best = int(likely.argmax())
        return {"line": line, "language": self.languages[best], "certainty": round(float(1 / likely.sum()), 6)}


classify = Classifier(json.loads(SAMPLES.read_text(encoding="utf-8")))
serve(lambda task: [classify(line) for line in task["lines"]])
