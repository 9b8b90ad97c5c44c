"""The content that the vectors speak of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """Reads one of the vector files."""
    return lambda name: json.loads((VECTORS / name).read_text())


@pytest.fixture(scope="session")
def content() -> Callable[[int], bytes]:
    """The pseudo-random bytes described in vectors/unixfs.json."""

    def of(size: int) -> bytes:
        x, out = 1, bytearray(size)
        for i in range(size):
            x = (1103515245 * x + 12345) & 0xFFFFFFFF
            out[i] = x >> 24
        return bytes(out)

    return of
