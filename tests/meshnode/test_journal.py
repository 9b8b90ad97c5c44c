"""What the peer must not forget: whole, in order, and never silently lost or begun anew."""

from __future__ import annotations

import secrets
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.journal import LOG_BYTES_KEPT, Journal, JournalFailed
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
        names = ("journal.sqlite3", "journal.sqlite3-mark", "journal.sqlite3-wal")
        assert modes_in(tmp_path) == dict.fromkeys(names, 0o600)
        found = {name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS}
    assert found == PRAGMAS


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "user_version": 2}

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


CUT_EVERY_BYTES = 211


def test_a_log_cut_anywhere_keeps_whole_commits_and_its_name_if_none_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    rows = [("job", bytes([number]), bytes(3000)) for number in range(3)]

    async def three_commits() -> tuple[bytes, list[dict[str, bytes]]]:
        moments = []
        async with Journal.open(path) as journal:
            for row in rows:
                await journal.commit([Record(*row), Record("other", row[1], row[2])])
                moments.append(moment_of(tmp_path))
            return journal.store, moments

    store, (_, before_last, last) = trio.run(three_commits)
    log = last["journal.sqlite3-wal"]
    for end in (*range(0, len(log), CUT_EVERY_BYTES), len(log)):
        for mark in (last, before_last):  # whether or not the last commit had returned
            cut = {"journal.sqlite3-wal": log[:end], "journal.sqlite3-mark": mark["journal.sqlite3-mark"]}
            put_back(tmp_path, {**last, **cut})
            found = trio.run(read, path)
            kept = len(found) // 2
            assert found == rows[:kept] + [("other", key, value) for _, key, value in rows[:kept]]
            promised = 3 if mark is last else 2
            assert (trio.run(store_of, path) == store) == (kept >= promised), end
    assert kept == 3


def moment_of(folder: Path) -> dict[str, bytes]:
    """What is on the disk while the journal is open."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def put_back(folder: Path, moment: dict[str, bytes]) -> None:
    """As a power cut at that moment would have left it: the files are the same ones."""
    for name, content in moment.items():
        (folder / name).write_bytes(content)


async def store_of(path: Path) -> bytes:
    async with Journal.open(path) as journal:
        return journal.store


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a journal has been closed in good order."""
    trio.run(write, tmp_path / "journal.sqlite3", [Record("job", b"1", b"one")])
    return tmp_path


def test_its_name_stays_when_it_is_opened_again(home: Path) -> None:
    path = home / "journal.sqlite3"
    assert len(trio.run(store_of, path)) == 16
    assert trio.run(store_of, path) == trio.run(store_of, path)


def set_back_while_closed(home: Path) -> None:
    moment = moment_of(home)
    trio.run(write, home / "journal.sqlite3", [Record("job", b"2", b"two")])
    put_back(home, {"journal.sqlite3": moment["journal.sqlite3"]})


def set_back_while_open(home: Path) -> None:
    async def write_on() -> dict[str, bytes]:
        async with Journal.open(home / "journal.sqlite3") as journal:
            await journal.commit([Record("job", b"2", b"two")])
            moment = moment_of(home)
            await journal.commit([Record("job", b"3", b"three")])
            return moment

    moment = trio.run(write_on)
    put_back(home, {name: moment[name] for name in ("journal.sqlite3", "journal.sqlite3-wal")})


def set_back_with_its_home(home: Path) -> None:
    for file in list(home.iterdir()):
        shutil.copy2(file, home / "restored")
        (home / "restored").replace(file)


def replaced_by_anothers(home: Path) -> None:
    other = home / "other"
    other.mkdir()
    trio.run(write, other / "journal.sqlite3", *([Record("job", b"1", b"one")] for _ in range(5)))
    put_back(home, {"journal.sqlite3": (other / "journal.sqlite3").read_bytes()})


def without_its_mark(home: Path) -> None:
    (home / "journal.sqlite3-mark").unlink()


def with_a_mark_that_cannot_be_read(home: Path) -> None:
    (home / "journal.sqlite3-mark").write_bytes(b"1 rubbish\n")


@pytest.mark.parametrize(
    ("lose", "says"),
    [
        (set_back_while_closed, "2 commits that were synced are gone"),
        (set_back_while_open, "1 commits that were synced are gone"),
        (set_back_with_its_home, "not the file that was here before"),
        (replaced_by_anothers, "not the file that was here before"),
        (without_its_mark, "has no mark"),
        (with_a_mark_that_cannot_be_read, "has no mark"),
    ],
)
def test_a_journal_that_may_have_forgotten_something_keeps_its_rows_under_a_new_name(
    home: Path, lose: Callable[[Path], None], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = home / "journal.sqlite3"
    store = trio.run(store_of, path)
    lose(home)
    caplog.clear()
    found = trio.run(store_of, path)
    assert found != store
    (warning,) = caplog.messages
    assert warning.startswith(f"{path}: ")
    assert says in warning
    assert ("job", b"1", b"one") in trio.run(read, path)
    assert trio.run(store_of, path) == found
    assert len(caplog.messages) == 1


def test_a_journal_that_was_removed_is_made_anew_under_a_new_name(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = home / "journal.sqlite3"
    store = trio.run(store_of, path)
    path.unlink()
    assert trio.run(store_of, path) != store
    assert [message for message in caplog.messages if "was missing" in message]
    assert trio.run(read, path) == []


def test_after_a_power_cut_its_mark_may_be_behind(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The mark is not synced with each commit, and never says more than was."""
    path, mark = home / "journal.sqlite3", (home / "journal.sqlite3-mark").read_bytes()
    store = trio.run(store_of, path)
    trio.run(write, path, [Record("job", b"2", b"two")])
    put_back(home, {"journal.sqlite3-mark": mark})
    assert trio.run(store_of, path) == store
    assert not caplog.messages


def make_format_1(path: Path) -> None:
    with closing(sqlite3.connect(path)) as old:
        old.execute('CREATE TABLE rows ("table" TEXT, key BLOB, value BLOB, PRIMARY KEY ("table", key)) WITHOUT ROWID')
        old.execute("PRAGMA user_version = 1")


def test_a_journal_of_format_1_goes_on_as_one_of_format_2(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.sqlite3"
    make_format_1(path)
    with closing(sqlite3.connect(path)) as old:
        old.execute("INSERT INTO rows VALUES ('job', x'31', x'32')")
        old.commit()
    store = trio.run(store_of, path)
    assert trio.run(read, path) == [("job", b"1", b"2")]
    assert trio.run(store_of, path) == store
    assert not caplog.messages


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
    for version, says in ((0, "no journal"), (3, "of format 3")):
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
@pytest.mark.parametrize("format_1", [False, True])
async def test_its_files_stop_growing_where_as_much_is_forgotten_as_is_kept(tmp_path: Path, format_1: bool) -> None:
    """A journal of format 1 keeps pages that become free for itself, one of format 2 gives them back to the disk."""
    path = tmp_path / "journal.sqlite3"
    if format_1:
        make_format_1(path)
    sizes = []
    jobs: list[bytes] = []
    async with Journal.open(path) as journal:
        for _ in range(5):
            for _ in range(60):
                jobs.append(secrets.token_bytes(32))
                await journal.commit([Record("step", jobs[-1] + bytes([step]), bytes(800)) for step in range(50)])
                if len(jobs) > 60:
                    forgotten = jobs.pop(0)
                    await journal.commit([Record("step", forgotten + bytes([step]), None) for step in range(50)])
            sizes.append((path.stat().st_size, log_of(path).stat().st_size))
        files, logs = zip(*sizes, strict=True)
        assert max(files[1:]) < 1.2 * files[1]
        assert max(logs) < 8 << 20
        await journal.commit([Record("large", bytes([row]), bytes(1 << 20)) for row in range(20)])
        await journal.commit([Record("large", bytes([row]), None) for row in range(20)])
        for job in jobs:
            await journal.commit([Record("step", job + bytes([step]), None) for step in range(50)])
        assert log_of(path).stat().st_size <= LOG_BYTES_KEPT
    assert path.stat().st_size < (30 << 20 if format_1 else 200_000)


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
