"""JSON that means the same everywhere: strict reading, and the canonical bytes of RFC 8785.

An output is stored as its canonical bytes, so whatever those cannot carry must be refused on the way in, with
the place at which it stands.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import rfc8785

from .errors import join_place, render

INTEGER_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exact (RFC 7493, I-JSON)."""

DEPTH_MAX = 64
"""How many lists and objects may be nested in each other."""

SIZE_MAX = 64 * 2**20
"""How many bytes of JSON are read unless the caller says otherwise. Parsed, they may take thirty times that."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_BEYOND = "the integer is beyond ±(2^53 - 1), so it would not stay exact"


class InvalidJson(ValueError):
    """A value that has no canonical bytes. ``place`` is its path (empty at the top), ``message`` the reason."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(place, message)
        self.place = place
        self.message = message

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a JSON value, or raise InvalidJson."""
    check_json(value)
    return rfc8785.dumps(value)


def loads_strict(data: bytes, *, size_max: int = SIZE_MAX) -> Any:
    """Parse JSON bytes into a value that ``canonical_json`` accepts, or raise InvalidJson.

    Refused besides bad syntax: NaN and Infinity, duplicate keys, lone surrogates, integers that a float would change,
    numbers too large for a float, more than DEPTH_MAX levels, more than ``size_max`` bytes.
    """
    if len(data) > size_max:
        raise InvalidJson("", f"{len(data)} bytes are more than the {size_max} that may be read")
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=_parse_int,
            parse_constant=lambda name: _Refused(f"{name} is not a JSON number"),
            object_pairs_hook=_parse_object,
        )
    except UnicodeDecodeError as problem:
        raise InvalidJson("", f"not UTF-8 (byte {problem.start})") from None
    except json.JSONDecodeError as problem:
        raise InvalidJson("", f"not JSON: {problem.msg} (line {problem.lineno}, column {problem.colno})") from None
    except RecursionError:
        raise InvalidJson("", f"nested more than {DEPTH_MAX} levels deep") from None
    check_json(value)
    return value


def check_json(value: Any) -> None:
    """Raise InvalidJson for the first thing in ``value`` that is not JSON or has no canonical bytes."""
    try:
        _check(value, 0)
    except _Fault as fault:
        place = ""
        for step in reversed(fault.steps):
            place = join_place(place, step)
        raise InvalidJson(place, fault.message) from None


class _Fault(Exception):
    """A fault on its way up; the path to it is collected as it passes, so that sound values cost no paths."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.steps: list[str | int] = []


def _check(item: Any, depth: int) -> None:
    if isinstance(item, dict | list):
        if depth == DEPTH_MAX:
            raise _Fault(f"nested more than {DEPTH_MAX} levels deep")
        for step, child in item.items() if isinstance(item, dict) else enumerate(item):
            if isinstance(item, dict):
                _check_key(step)
            try:
                _check(child, depth + 1)
            except _Fault as fault:
                fault.steps.append(step)
                raise
    elif isinstance(item, str):
        if _SURROGATE.search(item):
            raise _Fault("the text holds half a surrogate pair, which is no character")
    elif isinstance(item, float):
        if not math.isfinite(item):
            name = "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
            raise _Fault(f"{name} is not a JSON number")
    elif isinstance(item, int):  # bool as well: True and False are in range
        if abs(item) > INTEGER_MAX:
            raise _Fault(_BEYOND)
    elif isinstance(item, _Refused):
        raise _Fault(item.message)
    elif item is not None:
        raise _Fault(f"a {type(item).__name__} is not a JSON value")


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise _Fault(f"the key {key!r} is not a text")
    if _SURROGATE.search(key):
        raise _Fault("a key holds half a surrogate pair, which is no character")


class _Refused:
    """Stands in the parsed value for something refused, until its place is known."""

    def __init__(self, message: str) -> None:
        self.message = message


def exact_integer(digits: str) -> int | float | None:
    """Return the number that a decimal integer literal stands for, or None where reading it would change it.

    RFC 8785 writes the float 1e20 as the integer 100000000000000000000. Bytes of ours must read back, so an integer
    beyond INTEGER_MAX is the float whose canonical text it is, and refused when there is none.
    """
    if len(digits) > 22:  # the longest canonical integer has 21 digits; Python is slow at converting long ones
        return None
    number = int(digits)
    if abs(number) <= INTEGER_MAX:
        return number
    return float(number) if rfc8785.dumps(float(number)) == digits.encode() else None


def _parse_int(digits: str) -> int | float | _Refused:
    number = exact_integer(digits)
    return _Refused(_BEYOND) if number is None else number


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Refused:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return _Refused(f"the key {render(key)} appears twice")
        seen.add(key)
    raise AssertionError("fewer keys than pairs, yet no duplicate")
