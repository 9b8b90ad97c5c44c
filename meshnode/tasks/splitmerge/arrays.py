"""The sum or mean of arrays in .npy files, a piece at a time: no array is ever whole in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .contract import BadInput

PIECE_ITEMS = 1 << 20


@dataclass(frozen=True, slots=True)
class _Array:
    """What the head of a .npy file says."""

    path: Path
    dtype: Any
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int  # bytes before the first item

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def combine_arrays(strategy: str, files: Sequence[tuple[str, Path]], target: Path) -> None:
    """Write the ``sum`` or ``mean`` of the arrays in ``files``, each with its place for messages, to ``target``.

    Calculated in double precision, integers as such; floats keep their type, integers are summed to 64 bits and have a
    mean in double precision. Raises BadInput for what is no array of numbers, or not of the first one's shape.
    """
    arrays = [_head(path, place) for place, path in files]
    first = arrays[0]
    for (place, _), array in zip(files, arrays, strict=True):
        if (array.dtype, array.shape, array.fortran_order) != (first.dtype, first.shape, first.fortran_order):
            raise BadInput(f"{place}: an array of {_title(array)} cannot be put together with one of {_title(first)}")
    is_float = first.dtype.kind == "f"
    within = np.dtype(np.float64 if is_float else np.int64)
    result = first.dtype.newbyteorder("=") if is_float else np.dtype(np.float64 if strategy == "mean" else np.int64)
    with target.open("wb") as merged:
        head = {
            "descr": np.lib.format.dtype_to_descr(result),
            "fortran_order": first.fortran_order,
            "shape": first.shape,
        }
        np.lib.format.write_array_header_1_0(merged, head)
        for start in range(0, first.size, PIECE_ITEMS):
            count = min(PIECE_ITEMS, first.size - start)
            total = np.zeros(count, within)
            for array in arrays:
                at = array.offset + start * array.dtype.itemsize
                total += np.fromfile(array.path, array.dtype, count, offset=at).astype(within)
            merged.write((total / len(arrays) if strategy == "mean" else total).astype(result).tobytes())


def _head(path: Path, place: str) -> _Array:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError("unknown version")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
            array = _Array(path, dtype, shape, fortran_order, file.tell())
    except ValueError:
        raise BadInput(f"{place}: is not an array in .npy format") from None
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise BadInput(f"{place}: an array of {dtype} is not one of integers or floats")
    if path.stat().st_size != array.offset + array.size * dtype.itemsize:
        raise BadInput(f"{place}: the array is cut short, or something follows after it")
    return array


def _title(array: _Array) -> str:
    order = " in Fortran order" if array.fortran_order else ""
    return f"{array.dtype} {array.shape}{order}"
