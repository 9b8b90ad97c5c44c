"""examples/languages tells the languages of its own messages, as a program of its own and without a node."""

import json
import os
import subprocess
import sys
from pathlib import Path

from meshnode.runtimes.helpers import meshmodel

MODEL = Path(__file__).parents[2] / "examples" / "languages"


def test_the_language_of_every_message_is_found(tmp_path: Path) -> None:
    lines = (MODEL / "messages.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "input.json").write_text(json.dumps({"lines": [*lines, "12345"]}))
    places = {"MESH_INPUT": str(tmp_path), "MESH_OUTPUT": str(tmp_path)}
    path = {"PYTHONPATH": str(Path(meshmodel.__file__).parent)}
    subprocess.run([sys.executable, "languages.py"], cwd=MODEL, env={**os.environ, **places, **path}, check=True)
    *found, unknown = json.loads((tmp_path / "output.json").read_text())
    assert [answer["line"] for answer in found] == lines
    assert [answer["language"] for answer in found] == ["en", "de", "fr", "es", "it", "nl"] * 3
    assert (unknown["language"], unknown["certainty"]) == (None, 0.0)
