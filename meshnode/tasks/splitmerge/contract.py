"""The container contract as these programs use it: input.json in, output.json out, one sentence on failure."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

JsonObject = dict[str, Any]
Program = Callable[[JsonObject, Path, Path], None]


class BadInput(Exception):
    """What was handed in cannot be used; the text is one sentence for the person who submitted it."""


def run_program(program: Program) -> NoReturn:
    """Call ``program(value of input.json, MESH_INPUT, MESH_OUTPUT)`` and exit: 0 if it returns, 1 on bad input.

    Bad input is answered with its sentence on stderr and no traceback, since stderr is what the submitter sees.
    Anything else that goes wrong is a fault of ours and keeps its traceback.
    """
    try:
        input_dir, output_dir = Path(os.environ["MESH_INPUT"]), Path(os.environ["MESH_OUTPUT"])
    except KeyError as missing:
        sys.exit(f"the environment variable {missing.args[0]} is not set")
    try:
        program(_read_object(input_dir / "input.json"), input_dir, output_dir)
    except BadInput as problem:
        sys.exit(str(problem))
    except RecursionError:
        sys.exit("input.json is nested too deeply")
    sys.exit(0)


def write_output(output_dir: Path, value: object) -> None:
    """Write ``value`` as MESH_OUTPUT/output.json."""
    with (output_dir / "output.json").open("w", encoding="utf-8") as file:
        json.dump(value, file, allow_nan=False)


def parse_json(text: bytes) -> Any:
    """Parse JSON proper: NaN and Infinity, which Python's parser lets through, are a ValueError too."""
    return json.loads(text, parse_constant=_refuse_constant)


def file_path(value: object, place: str, input_dir: Path) -> Path:
    """Return the file behind a file-valued key, or raise BadInput naming ``place``.

    Only a relative path to a regular file below MESH_INPUT is followed. The value may have been written by
    the submitter rather than by the node.
    """
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str):
        raise BadInput(f"{place}: expected a file, got {describe(value)}")
    try:
        found = (input_dir / path).resolve()
        inside = found.is_relative_to(input_dir.resolve()) and found.is_file()
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise BadInput(f"{place}: no file {path!r} came with the task")
    return found


def as_links(value: Any) -> Any:
    """Return ``value`` with every file in it turned back into a link.

    A shard's input leaves this task, and with it the meaning of ``path``; the cid stays valid everywhere.
    """
    if isinstance(value, dict):
        is_file = "path" in value and "cid" in value
        return {key: as_links(item) for key, item in value.items() if not (is_file and key == "path")}
    if isinstance(value, list):
        return [as_links(item) for item in value]
    return value


def describe(value: object) -> str:
    """Name a JSON value in an error message, briefly however large it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _read_object(path: Path) -> JsonObject:
    try:
        value = parse_json(path.read_bytes())
    except OSError as problem:
        raise BadInput(f"input.json cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise BadInput(f"input.json is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise BadInput(f"input.json: expected an object, got {describe(value)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
