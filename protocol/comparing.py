"""Comparing a JSON value that was shown with the one that is signed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def differences(place: str, shown: Any, signed: Any) -> Iterator[tuple[str, str]]:
    """Where two JSON values differ, at the innermost place."""
    if isinstance(shown, dict) and isinstance(signed, dict):
        for key in [*signed, *(key for key in shown if key not in signed)]:
            where = f"{place}.{key}"
            if key not in shown:
                yield where, f"is missing, but signed is {brief(signed[key])}"
            elif key not in signed:
                yield where, "is no part of what was signed"
            else:
                yield from differences(where, shown[key], signed[key])
    elif isinstance(shown, list) and isinstance(signed, list) and len(shown) == len(signed):
        for index, (item, other) in enumerate(zip(shown, signed, strict=True)):
            yield from differences(f"{place}[{index}]", item, other)
    elif not equal(shown, signed):
        yield place, f"is {brief(shown)}, but signed is {brief(signed)}"


def equal(shown: object, expected: object) -> bool:
    """Equal as JSON: to Python true is 1, and 1.0 is 1."""
    if isinstance(shown, dict) and isinstance(expected, dict):
        return shown.keys() == expected.keys() and all(equal(shown[key], expected[key]) for key in shown)
    return type(shown) is type(expected) and shown == expected


def brief(value: object) -> str:
    """A JSON value in a sentence, short however large it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        value = value if len(value) <= 90 else f"{value[:87]}..."
        return value if value.isprintable() and value else ascii(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:90]
