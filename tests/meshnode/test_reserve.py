"""When a node says that its disk is nearly full."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from meshnode.reserve import Reserve


def test_it_says_so_once_and_takes_it_back_when_there_is_clearly_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path, 800 << 20)
    seen = []
    for free in (801, 800, 799, 700, 801, 899, 900, 899):
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: SimpleNamespace(free=free << 20))
        seen.append((reserve.look(), reserve.low is not None))
    assert seen == [
        (False, False),
        (False, False),
        (True, True),
        (False, True),
        (False, True),
        (False, True),
        (True, False),
        (False, False),
    ]


def test_without_a_reserve_no_disk_is_too_full(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 0)
    assert not reserve.look()
    assert reserve.low is None
