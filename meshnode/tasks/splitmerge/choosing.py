"""The merges that take one of the outputs: vote the commonest, best the one with the highest or lowest score."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from .contract import BadInput, JsonObject, describe
from .parts import Part, Parts

_PIECE_BYTES = 1 << 20


def vote(parts: Parts, settings: JsonObject, output_dir: Path) -> None:
    """The output that most shards have, by its bytes or by what stands under ``key``; of several the first one."""
    key = _key(settings, None)
    votes: dict[bytes, tuple[int, int]] = {}  # digest: so many, and minus the first shard that has it
    for part in parts.succeeded:
        ballot = _digest(part) if key is None else _digest_of_value(_member(part, key, "vote"))
        count, first = votes.get(ballot, (0, -part.index))
        votes[ballot] = count + 1, first
    if not votes:
        raise BadInput("vote: no shard has an output")
    _, first = max(votes.values())
    winner = next(part for part in parts.succeeded if part.index == -first)
    _write(winner, output_dir)


def best(parts: Parts, settings: JsonObject, output_dir: Path) -> None:
    """The output whose number under ``key`` is the largest, or smallest with ``prefer``; of several the first one.

    The elements of outputs that are lists compete one by one.
    """
    key = _key(settings, "score")
    assert key is not None
    prefer = settings.get("prefer") or "largest"
    if prefer not in ("largest", "smallest"):
        raise BadInput(f"merge.prefer: {describe(prefer)} is not one of largest, smallest")
    winner: Any = None
    winning: float | None = None
    for part in parts.succeeded:
        value = part.value("best")
        for candidate in value if isinstance(value, list) else [value]:
            score = candidate.get(key) if isinstance(candidate, dict) else None
            if not isinstance(score, int | float) or isinstance(score, bool):
                raise BadInput(f"{part.place}: {key}: expected a number to compare by, got {describe(score)}")
            if winning is None or (score > winning if prefer == "largest" else score < winning):
                winner, winning = candidate, score
    if winning is None:
        raise BadInput("best: no shard has an output")
    (output_dir / "output.json").write_text(json.dumps(winner, allow_nan=False))


def _key(settings: JsonObject, default: str | None) -> str | None:
    key = settings.get("key") or default
    if key is not None and not isinstance(key, str):
        raise BadInput(f"merge.key: expected a name, got {describe(key)}")
    return key


def _member(part: Part, key: str, strategy: str) -> Any:
    value = part.value(strategy)
    if not isinstance(value, dict) or key not in value:
        raise BadInput(f"{part.place}: {key}: is missing; {strategy} goes by it")
    return value[key]


def _digest(part: Part) -> bytes:
    """Of the output's bytes, which for JSON are the canonical ones: equal values, equal bytes."""
    if part.text is not None:
        return hashlib.sha256(part.text.encode()).digest()
    assert part.file is not None
    with part.file.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _digest_of_value(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()


def _write(part: Part, output_dir: Path) -> None:
    """Write an output as it is: JSON as such, other bytes as a file."""
    if part.text is not None:
        (output_dir / "output.json").write_text(part.text)
        return
    assert part.file is not None
    try:
        part.value("vote")
        name = "output.json"
    except BadInput:
        name = "output.bin"
    with part.file.open("rb") as source, (output_dir / name).open("wb") as target:
        shutil.copyfileobj(source, target, _PIECE_BYTES)
