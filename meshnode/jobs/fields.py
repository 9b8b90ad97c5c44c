"""Taking typed values out of a mapping that a user wrote, with an error that says which key and why."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from .errors import InvalidFile, join_place, render

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
"""What model, publisher, stage and job names look like: up to 64 letters, digits, dots, dashes, underscores."""

_SIZE = re.compile(r"([0-9]{1,12})(\.[0-9]{1,6})? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    unit: 2 ** (10 * power) for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)
}


class Fields:
    """One mapping of a file, at ``place``, called ``kind`` in messages (``a job``, ``multi_node``).

    Every key must be in ``known``. ``unsupported`` are known ones whose feature this version does not have, with
    the values under which they ask for nothing; any other value is refused. A key that stands there with null
    counts as left out.
    """

    def __init__(
        self,
        value: Any,
        file: str,
        place: str,
        kind: str,
        known: Collection[str],
        unsupported: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> None:
        self._file = file
        self._place = place
        if not isinstance(value, dict):
            raise InvalidFile(file, place, f"expected a mapping, got {render(value)}")
        self._values: dict[str, Any] = value
        unsupported = unsupported or {}
        for key, item in value.items():
            if key in unsupported:
                if not any(item is off or (type(item) is type(off) and item == off) for off in unsupported[key]):
                    raise self.error(key, "is not supported by this version")
            elif key not in known:
                raise self._unknown(key, kind, [*known, *unsupported])

    def error(self, key: str, message: str) -> InvalidFile:
        """Return the error for the value under ``key``."""
        return InvalidFile(self._file, join_place(self._place, key), message)

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def raw(self, key: str) -> Any:
        return self._values.get(key)

    def required(self, key: str, what: str) -> None:
        """Raise InvalidFile unless ``key`` is there; ``what`` says what it is for."""
        if not self.has(key):
            raise InvalidFile(self._file, self._place, f"{key!r} is missing: {what}")

    def mapping(self, key: str) -> dict[str, Any] | None:
        return self._typed(key, dict, "a mapping")

    def items(self, key: str) -> list[Any] | None:
        return self._typed(key, list, "a list")

    def text(self, key: str) -> str | None:
        value: str | None = self._typed(key, str, "a text")
        if value == "":
            raise self.error(key, "must not be empty")
        return value

    def flag(self, key: str) -> bool | None:
        return self._typed(key, bool, "true or false")

    def name(self, key: str) -> str | None:
        value = self.text(key)
        if value is not None and not NAME.fullmatch(value):
            raise self.error(key, f"{render(value)} is not a name (up to 64 letters, digits, '.', '_' and '-')")
        return value

    def choice(self, key: str, allowed: Collection[str]) -> str | None:
        """Return one of ``allowed``."""
        value = self.text(key)
        if value is None or value in allowed:
            return value
        raise self.error(key, f"{render(value)} is not one of {', '.join(allowed)}")

    def integer(self, key: str, low: int, high: int) -> int | None:
        """Return an integer from ``low`` to ``high``."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"expected an integer, got {render(value)}")
        return int(self._in_range(key, value, low, high))

    def number(self, key: str, low: float, high: float) -> float | None:
        """Return a number from ``low`` to ``high``."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(key, f"expected a number, got {render(value)}")
        return self._in_range(key, value, low, high)

    def size(self, key: str, low: int, high: int) -> int | None:
        """Return a number of bytes, written as such or with a unit (``512MiB``, ``1.5GB``)."""
        value = self._values.get(key)
        if isinstance(value, str):
            match = _SIZE.fullmatch(value)
            if not match:
                raise self.error(key, f"{render(value)} is not a size in bytes such as 512MiB or 1GiB")
            value = int(float(match[1] + (match[2] or "")) * _UNITS[match[3]])
            if not low <= value <= high:
                raise self.error(key, f"must be from {low} to {high} bytes, got {value}")
            return value
        return self.integer(key, low, high)

    def _in_range(self, key: str, value: float, low: float, high: float) -> float:
        if not low <= value <= high:
            bound = f"at least {low}" if value < low else f"at most {high}"
            raise self.error(key, f"must be {bound}, got {value}")
        return value

    def _typed(self, key: str, expected: type, what: str) -> Any:
        value = self._values.get(key)
        if value is not None and not isinstance(value, expected):
            raise self.error(key, f"expected {what}, got {render(value)}")
        return value

    def _unknown(self, key: str, kind: str, known: list[str]) -> InvalidFile:
        near = difflib.get_close_matches(key[:80], known, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(sorted(known))}"
        return InvalidFile(self._file, self._place, f"{render(key)} is not a key of {kind}{hint}")
