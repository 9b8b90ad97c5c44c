"""A part of the soak is a row of pieces. Each is done once: what it gave is on disk before the next begins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Json = dict[str, Any]
RunPiece = Callable[[str], Json]


class Part(Protocol):
    """One thing that the soak finds out."""

    name: str
    pieces: Sequence[str]

    def running(self, folder: Path) -> AbstractContextManager[RunPiece]:
        """What runs a piece while the block lasts; ``folder`` is the part's own. A result says whether it is ``ok``."""
        ...

    def summary(self, results: Sequence[Json]) -> Json:
        """The figures of the pieces so far; also whether all is ``ok``."""
        ...


class Store:
    """Results of one version at one scale, below a folder."""

    def __init__(self, folder: Path, about: Json) -> None:
        """Raises ValueError if the folder has results of something else."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        known = _read(folder / "about.json")
        if known is None:
            _write(folder / "about.json", about)
        elif known != about:
            raise ValueError(f"{folder} has results of {known}, this is {about}: remove it, or set another SOAK_DIR")

    def results(self, part: Part) -> list[Json]:
        """Of the pieces that are done."""
        found = (_read(self._file(part, piece)) for piece in part.pieces)
        return [result for result in found if result is not None]

    def run(self, part: Part) -> Iterator[tuple[str, Json]]:
        """Run the pieces that are not done yet."""
        missing = [piece for piece in part.pieces if not self._file(part, piece).exists()]
        if not missing:
            return
        folder = self.folder / part.name
        folder.mkdir(exist_ok=True)
        with part.running(folder) as run:
            for piece in missing:
                result = run(piece)
                _write(self._file(part, piece), result)
                yield piece, result

    def _file(self, part: Part, piece: str) -> Path:
        return self.folder / part.name / f"{piece}.json"


def _read(path: Path) -> Json | None:
    try:
        value: Json = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return value


def _write(path: Path, value: Json) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
