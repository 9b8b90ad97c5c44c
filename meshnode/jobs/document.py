"""Reading a file that a user wrote, YAML or JSON, as a JSON object.

The YAML accepted is that which means the same to everybody: the core schema of YAML 1.2 (so ``no`` is a text and
``12:30`` is not a number), without anchors, aliases, tags and duplicate keys. The value is built from the parser's
events, whose number is bounded by the size of the file; nothing is ever constructed from a tag.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .canonical import DEPTH_MAX, INTEGER_MAX, InvalidJson, check_json, exact_integer, loads_strict
from .errors import InvalidFile, join_place, render

SIZE_MAX = 2**20
"""How many bytes a model or job file may have."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser, where PyYAML was built with it

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {name: name.lower() == "true" for name in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file at ``path``, or raise InvalidFile named after it."""
    name = path.name or str(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidFile(name, "", "is not a regular file")
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise InvalidFile(str(path), "", "no such file") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise InvalidFile(str(path), "", f"cannot be read: {reason}") from None
    return parse_document(data, name)


def parse_document(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in ``data``: JSON if ``name`` ends in .json, else YAML. Raise InvalidFile."""
    if len(data) > SIZE_MAX:
        raise InvalidFile(name, "", f"is larger than {SIZE_MAX} bytes")
    try:
        if name.endswith(".json"):
            value = loads_strict(data)
        else:
            value = _parse_yaml(data.decode("utf-8-sig"))
            check_json(value)
    except InvalidJson as problem:
        raise InvalidFile(name, problem.place, problem.message) from None
    except UnicodeDecodeError as problem:
        raise InvalidFile(name, "", f"not UTF-8 (byte {problem.start})") from None
    if value is None:
        raise InvalidFile(name, "", "is empty, expected a mapping of keys to values")
    if not isinstance(value, dict):
        raise InvalidFile(name, "", f"expected a mapping of keys to values, got {render(value)}")
    return value


def _parse_yaml(text: str) -> Any:
    try:
        # libyaml takes no lone surrogates and no control characters; both arrive here as YAMLError
        return _Builder(yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise InvalidJson("", f"not YAML: {problem.problem or problem.context}{where}") from None
    except yaml.reader.ReaderError as problem:
        raise InvalidJson("", f"not YAML: character {problem.position} cannot stand in a YAML file") from None


class _Builder:
    """Builds a JSON value from the events of one YAML document."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events

    def document(self) -> Any:
        value = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise InvalidJson("", f"holds a second document (line {_line(event)}), expected one")
                value = self._value(next(self._events), "", 0)
        return value

    def _value(self, event: Any, place: str, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise InvalidJson(place, f"anchors and aliases are not allowed (line {_line(event)})")
        if event.tag is not None:
            raise InvalidJson(place, f"the tag {render(event.tag)} is not allowed (line {_line(event)})")
        if isinstance(event, yaml.ScalarEvent):
            return _resolve(event.value, place) if event.implicit[0] else event.value
        if depth == DEPTH_MAX:
            raise InvalidJson("", f"nested more than {DEPTH_MAX} levels deep (line {_line(event)})")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place, depth)
        return self._mapping(place, depth)

    def _sequence(self, place: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, join_place(place, len(items)), depth + 1))
        return items

    def _mapping(self, place: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise InvalidJson(place, f"a key must be a text (line {_line(event)})")
            key = self._value(event, place, depth + 1)
            if not isinstance(key, str):
                raise InvalidJson(place, f"the key {render(event.value)} is not a text; quote it (line {_line(event)})")
            if key in values:
                raise InvalidJson(place, f"the key {render(key)} appears twice (line {_line(event)})")
            values[key] = self._value(next(self._events), join_place(place, key), depth + 1)
        return values


def _resolve(text: str, place: str) -> Any:
    """Return what an unquoted scalar stands for in YAML 1.2."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        number = int(text, 0) if text.startswith(("0o", "0x")) else exact_integer(text)
        return INTEGER_MAX + 1 if number is None else number  # check_json refuses it, with its place
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        raise InvalidJson(place, f"{text} is not a number that JSON can carry")
    return text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
