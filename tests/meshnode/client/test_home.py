"""The submitter's key and outbox."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshnode.client.errors import ClientError
from meshnode.client.home import OUTBOX_KEPT_S, keep_signed, submitter_key


def test_the_key_is_drawn_once_and_is_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = submitter_key(home)
    assert submitter_key(home).peer_id == first.peer_id
    assert (home / "submitter.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir()] == ["submitter.key"]


def test_two_at_once_draw_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = {key.peer_id for key in pool.map(submitter_key, [tmp_path] * 8)}
    assert len(keys) == 1


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    submitter_key(tmp_path)
    (tmp_path / "submitter.key").chmod(0o644)
    with pytest.raises(ClientError, match="can be read by others"):
        submitter_key(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "submitter.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ClientError, match="a key has 32 bytes"):
        submitter_key(tmp_path)


def test_the_outbox_keeps_what_was_signed_for_a_week(tmp_path: Path) -> None:
    old = keep_signed(tmp_path, "aa", "old")
    os.utime(old, (old.stat().st_mtime - OUTBOX_KEPT_S - 60,) * 2)
    path = keep_signed(tmp_path, "bb", "signed")
    assert path.read_text() == "signed"
    assert keep_signed(tmp_path, "bb", "other").read_text() == "signed"
    assert not old.exists()
