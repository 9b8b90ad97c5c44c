"""The elements of a JSON array in a file, one after the other: the array is never in memory, one element is."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

ELEMENT_CHARS_MAX = 16 << 20
"""One element may have so many characters; parsed, it may take thirty times as many bytes."""
_PIECE_CHARS = 1 << 18
_SPACE = " \t\n\r"


def read_elements(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Yield (text, value) of each element of the array in ``file``. Raises ValueError where it is no such array."""
    reader = codecs.getreader("utf-8")(file)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    buffer, at, ended = "", 0, False

    def more() -> None:
        nonlocal buffer, at, ended
        kept = buffer[at:]
        if len(kept) > ELEMENT_CHARS_MAX:
            raise ValueError(f"an element has more than {ELEMENT_CHARS_MAX} characters")
        piece = reader.read(max(_PIECE_CHARS, len(kept)))
        buffer, at, ended = kept + piece, 0, not piece

    def next_sign() -> str:
        """The next character that is no space, which is not passed; "" at the end."""
        nonlocal at
        while True:
            while at < len(buffer) and buffer[at] in _SPACE:
                at += 1
            if at < len(buffer) or ended:
                return buffer[at : at + 1]
            more()

    if next_sign() != "[":
        raise ValueError("expected a list")
    at += 1
    if next_sign() == "]":
        at += 1
    else:
        while True:
            next_sign()
            try:
                value, end = decoder.raw_decode(buffer, at)
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except json.JSONDecodeError as problem:
                if ended:
                    raise ValueError(problem.msg) from None
                more()
                continue
            if end == len(buffer) and not ended:  # a number may go on in the next piece
                more()
                continue
            text, at = buffer[at:end], end
            yield text, value
            sign = next_sign()
            at += 1
            if sign == "]":
                break
            if sign != ",":
                raise ValueError("expected ',' or ']' after an element of the list")
    if next_sign():
        raise ValueError("something follows after the list")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
