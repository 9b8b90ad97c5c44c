"""A node's home: made once, private, one node at a time."""

from __future__ import annotations

import multiprocessing
import stat
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from meshnode.keystore import HomeError, load_seed, open_home, peer_id_at, write_private
from protocol.identity import Ed25519Signer


def test_its_identity_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "home"
    with open_home(path) as first:
        pass
    with open_home(path) as second:
        pass
    assert first.seed == second.seed
    assert peer_id_at(path) == Ed25519Signer(first.seed).peer_id


def test_nobody_else_can_look(tmp_path: Path) -> None:
    with open_home(tmp_path / "home") as home:
        assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
        for name in ("node.key", "lock"):
            assert stat.S_IMODE((home.path / name).stat().st_mode) == 0o600


def _hold(path: Path, held: Event) -> None:
    with open_home(path):
        held.set()
        multiprocessing.Event().wait()


def test_a_home_in_use_is_refused_and_free_after_a_kill(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "home", held))
    process.start()
    try:
        assert held.wait(30)
        with pytest.raises(HomeError, match=str(process.pid)), open_home(tmp_path / "home"):
            pass
    finally:
        process.kill()
        process.join()
    with open_home(tmp_path / "home"):
        pass


def test_a_damaged_key_is_named_and_not_replaced(tmp_path: Path) -> None:
    with open_home(tmp_path):
        pass
    (tmp_path / "node.key").write_bytes(b"short")
    with pytest.raises(HomeError, match=r"node\.key"), open_home(tmp_path):
        pass
    assert (tmp_path / "node.key").read_bytes() == b"short"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="file"), open_home(tmp_path / "file" / "home"):
        pass


def test_writing_replaces_at_once(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    seed = load_seed(path)
    write_private(path, seed[::-1])
    assert load_seed(path) == seed[::-1]
    assert [file.name for file in tmp_path.iterdir()] == ["node.key"]
