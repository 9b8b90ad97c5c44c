"""The one error that reading a user's file ends in."""

from __future__ import annotations


class InvalidFile(Exception):
    """A file that a user wrote cannot be used.

    file: the name the user knows it by. place: the path of the value at fault, such as ``input.items[3].url``;
    empty for the file as a whole. message: what is wrong there. ``str()`` is the sentence to show.
    """

    def __init__(self, file: str, place: str, message: str) -> None:
        super().__init__(file, place, message)
        self.file = file
        self.place = place
        self.message = message

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.place, self.message) if part)


def join_place(place: str, step: str | int) -> str:
    """Extend the path of a value by a key or a list position: ``input``, 3 becomes ``input[3]``."""
    if isinstance(step, int):
        return f"{place}[{step}]"
    name = step if len(step) <= 80 else f"{step[:77]}..."
    name = name if name.isprintable() else ascii(name)
    return f"{place}.{name}" if place else name


def render(value: object) -> str:
    """Show a value in an error message, briefly however large it is."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        value = value if len(value) <= 80 else f"{value[:77]}..."
        return repr(value) if value.isprintable() else ascii(value)
    return str(value)
