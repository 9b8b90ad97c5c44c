"""What the peer must not forget: whole, in order, and never silently lost or begun anew."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.journal import Journal, JournalFailed
from protocol.effects import Record

BATCHES = st.lists(
    st.lists(
        st.builds(
            Record,
            table=st.sampled_from(["job", "step"]),
            key=st.binary(max_size=2),
            value=st.none() | st.binary(max_size=40),
        ),
        max_size=6,
    ),
    max_size=6,
)


async def write(path: Path, *batches: list[Record]) -> None:
    async with Journal.open(path) as journal:
        for batch in batches:
            await journal.commit(batch)


async def read(path: Path) -> list[tuple[str, bytes, bytes]]:
    async with Journal.open(path) as journal:
        return await journal.rows()


@settings(max_examples=40)
@given(batches=BATCHES)
def test_rows_are_what_the_records_made_of_them(
    batches: list[list[Record]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite3"
    expected: dict[tuple[str, bytes], bytes] = {}
    for record in (record for batch in batches for record in batch):
        expected.pop((record.table, record.key), None)
        if record.value is not None:
            expected[record.table, record.key] = record.value
    trio.run(write, path, *batches)
    assert trio.run(read, path) == [(table, key, value) for (table, key), value in sorted(expected.items())]


@pytest.mark.trio
async def test_it_is_private_and_synced_at_every_commit(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    async with Journal.open(path) as journal:
        await journal.commit([Record("job", b"1", b"one")])
        assert modes_in(tmp_path) == {"journal.sqlite3": 0o600, "journal.sqlite3-wal": 0o600}
        found = {name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS}
    assert found == PRAGMAS


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "user_version": 1}

WRITER = """
import sys, trio
from pathlib import Path
from meshnode.journal import Journal
from protocol.effects import Record

async def main():
    async with Journal.open(Path(sys.argv[1])) as journal:
        for number in range(1_000_000):
            key = number.to_bytes(4, "big")
            await journal.commit([Record("left", key, key), Record("right", key, key * 500)])
            print(number, flush=True)

trio.run(main)
"""


def test_a_kill_keeps_every_commit_that_returned_and_no_half_of_another(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    acknowledged = len([line for line in lines if line.endswith(b"\n")])
    rows = trio.run(read, path)
    left, right = ([key for table, key, _ in rows if table == name] for name in ("left", "right"))
    assert left == right == [number.to_bytes(4, "big") for number in range(len(left))]
    assert acknowledged <= len(left) <= acknowledged + 1


def test_a_torn_last_write_is_left_out(tmp_path: Path) -> None:
    path, torn = tmp_path / "journal.sqlite3", tmp_path / "torn" / "journal.sqlite3"
    torn.parent.mkdir()

    async def copy_in_the_middle() -> int:
        async with Journal.open(path) as journal:
            await journal.commit([Record("job", b"1", b"one")])
            whole = log_of(path).stat().st_size
            await journal.commit([Record("job", b"2", bytes(9000))])
            for file in (path, log_of(path)):
                shutil.copy(file, torn.parent / file.name)
            return whole

    whole = trio.run(copy_in_the_middle)
    with log_of(torn).open("r+b") as log:
        log.seek(whole + 5000)
        log.write(b"\xff" * 100)
    assert trio.run(read, torn) == [("job", b"1", b"one")]


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def a_journal(path: Path) -> bytes:
    trio.run(write, path, [Record("job", number.to_bytes(2, "big"), bytes(3000)) for number in range(100)])
    return path.read_bytes()


def damaged(content: bytes) -> list[bytes]:
    noise = bytes(range(256)) * 32
    return [
        b"",
        b"no database",
        content[: len(content) // 2],
        noise + content[len(noise) :],
        content[:20_000] + noise + content[20_000 + len(noise) :],
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, number: int) -> None:
    path = tmp_path / "journal.sqlite3"
    broken = damaged(a_journal(path))[number]
    path.write_bytes(broken)
    with pytest.raises(JournalFailed) as refused:
        trio.run(read, path)
    assert str(refused.value).startswith(f"{path}: ")
    assert len(str(refused.value).splitlines()) == 1
    assert path.read_bytes() == broken


def test_another_programs_database_and_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    for version, says in ((0, "no journal"), (2, "of format 2")):
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (x)")
            other.execute(f"PRAGMA user_version = {version}")
        other.close()
        with pytest.raises(JournalFailed, match=says):
            trio.run(read, path)


def test_a_log_without_its_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    log_of(path).write_bytes(b"what is left")
    with pytest.raises(JournalFailed, match="missing"):
        trio.run(read, path)
    assert not path.exists()


def test_a_start_that_was_cut_off_while_making_it_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    path.with_name(path.name + ".new").write_bytes(b"half")
    assert trio.run(read, path) == []
    assert not path.with_name(path.name + ".new").exists()


@pytest.mark.trio
async def test_nobody_else_may_use_it_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    async with Journal.open(path):
        with pytest.raises(JournalFailed, match="another program uses it"):
            async with Journal.open(path):
                pass


@pytest.mark.trio
async def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed, match="nowhere"):
        async with Journal.open(tmp_path / "nowhere" / "journal.sqlite3"):
            pass


@pytest.mark.trio
async def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    async with Journal.open(path) as journal:
        await journal.commit([Record("job", b"1", b"one")])
        pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
        journal._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(JournalFailed, match="disk is full"):
            await journal.commit([Record("job", b"1", None), Record("job", b"2", bytes(20_000))])
        assert await journal.rows() == [("job", b"1", b"one")]
    assert await read(path) == [("job", b"1", b"one")]
