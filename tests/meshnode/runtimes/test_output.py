"""Output directories as hostile tasks leave them."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.runtimes import output as runtimes_output
from meshnode.runtimes.output import DEPTH_MAX, OutputRefused, collect_output, exceeds, reclaim, remove_tree
from meshnode.runtimes.streams import Head, Tail


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (folder := tmp_path / "output").mkdir()
    return folder


def hard_link(output: Path) -> None:
    (output.parent / "foreign").write_text("x")
    os.link(output.parent / "foreign", output / "bad")


def unix_socket(output: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(output / "bad"))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda output: (output / "bad").symlink_to("/etc/passwd"), "'bad' is a symbolic link"),
        (lambda output: (output / "bad").symlink_to(output, target_is_directory=True), "'bad' is a symbolic link"),
        (lambda output: os.mkfifo(output / "bad"), "'bad' is a fifo"),
        (unix_socket, "'bad' is a socket"),
        (hard_link, "'bad' has 2 hard links"),
        (lambda output: os.close(os.open(os.fsencode(output) + b"/\xff", os.O_CREAT)), "not printable UTF-8"),
        (lambda output: (output / "a\nb").touch(), "not printable UTF-8"),
        (lambda output: (output / "/".join("d" * (DEPTH_MAX + 1))).mkdir(parents=True), "folders deep"),
    ],
)
def test_what_is_not_a_plain_file_is_refused_by_name(output: Path, make: Callable, reason: str) -> None:
    (output / "good").write_text("x")
    make(output)
    with pytest.raises(OutputRefused, match=reason):
        collect_output(output)
    reclaim(output)
    remove_tree(output)
    assert not output.exists()


def test_too_many_files_are_refused(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes_output, "OUTPUT_FILES_MAX", 100)
    for number in range(101):
        (output / str(number)).touch()
    with pytest.raises(OutputRefused, match="more than 100 files"):
        collect_output(output)
    assert exceeds(output, 1 << 30)


@pytest.mark.parametrize("swap", ["file for a link", "folder for a link", "file for a fifo", "file for nothing"])
def test_a_file_swapped_after_it_was_collected_is_not_followed(output: Path, swap: str) -> None:
    (outside := output.parent / "outside").mkdir()
    (outside / "file").write_text("secret")
    (output / "folder").mkdir()
    (output / "folder" / "file").write_text("x")
    (file,) = collect_output(output)
    (output / "folder" / "file").unlink()
    if swap == "file for a link":
        (output / "folder" / "file").symlink_to(outside / "file")
    elif swap == "folder for a link":
        (output / "folder").rmdir()
        (output / "folder").symlink_to(outside)
    elif swap == "file for a fifo":
        os.mkfifo(output / "folder" / "file")
    with pytest.raises(OutputRefused, match="folder/file"):
        file.open()


def test_reclaim_leaves_a_foreign_file_alone(output: Path) -> None:
    hard_link(output)
    (output.parent / "foreign").chmod(0o600)
    (output / "own").write_text("x")
    (output / "own").chmod(0)
    reclaim(output)
    assert (output.parent / "foreign").stat().st_mode & 0o777 == 0o600
    assert (output / "own").stat().st_mode & 0o777 == 0o644


def test_remove_tree_is_not_stopped_by_depth_modes_or_names(output: Path) -> None:
    directory = os.open(output, os.O_RDONLY)
    for _ in range(1200):  # deeper than a path name or Python's stack can be
        os.mkdir("d", dir_fd=directory)
        os.close(os.open("file", os.O_CREAT, dir_fd=directory))
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    (output / "moved-0").mkdir(mode=0)
    (output / "link").symlink_to("/etc")
    assert exceeds(output, 1 << 30)
    remove_tree(output)
    assert not output.exists()
    remove_tree(output)


def test_exceeds_counts_all_files_and_no_links(output: Path) -> None:
    (output / "a").mkdir()
    (output / "a" / "one").write_bytes(bytes(600))
    (output / "two").write_bytes(bytes(400))
    (output / "link").symlink_to("/proc/kcore")
    assert not exceeds(output, 1000)
    assert exceeds(output, 999)


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_head_and_tail_keep_both_ends(chunks: list[bytes], limit: int) -> None:
    head, tail = Head(limit), Tail(limit)
    for chunk in chunks:
        head.feed(chunk)
        tail.feed(chunk)
    everything = b"".join(chunks)
    assert bytes(head) == everything[:limit]
    assert head.truncated == (len(everything) > limit)
    assert tail.text() == everything[-limit:].decode(errors="replace")
