"""What a node records, and what ``infra replay`` says of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from meshnode.cli.group import run
from meshnode.keystore import peer_id_at
from meshnode.recorder import FILE_NAME, PREVIOUS_NAME, Recorder
from protocol import trace
from protocol.identity import Ed25519Signer
from protocol.membership import Membership
from protocol.messages import Join
from protocol.probing import Probing
from tests.meshnode.test_node import SQUARES, ended, mesh, submit, until
from tests.protocol.recorded import PING_AT, life, record, start_of

PLENTY = 64 << 20
SEED = b"\x07" * 32

Infra = Callable[..., tuple[int, str]]


@pytest.fixture
def infra(capfd: pytest.CaptureFixture[str]) -> Infra:
    """Run a command; its exit code, and what it printed on either stream."""

    def call(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        return code, "".join(capfd.readouterr())

    return call


# -- nodes ------------------------------------------------------------------------------------------------------


async def two_lives(folder: Path) -> list[Path]:
    """The homes of two nodes that did a job, and were started again; both recorded."""
    async with mesh(folder, 2, trace_bytes=PLENTY) as (first, second):
        job = await submit(first, SQUARES, {"items": [1, 2]}, Ed25519Signer(secrets.token_bytes(32)))
        assert (await ended(second, job, first.peer_id)).status == "success"
        homes = [node.config.home for node in (first, second)]
    async with mesh(folder, 2, trace_bytes=PLENTY) as (first, second):
        assert (await ended(second, job, first.peer_id)).status == "success"
    return homes


@pytest.mark.trio
async def test_what_nodes_recorded_has_the_same_effects_again(
    tmp_path: Path, infra: Infra, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = await two_lives(tmp_path)
    for home in homes:
        code, printed = infra("replay", home)
        assert code == 0, printed
        lines = printed.splitlines()
        assert [line.partition(":")[0] for line in lines] == [str(home / PREVIOUS_NAME), str(home / FILE_NAME)]
        assert all(line.endswith(" events replayed, identical effects") for line in lines), printed
        assert (home / FILE_NAME).stat().st_mode & 0o077 == 0, "others can read what clients asked"
        with (home / FILE_NAME).open("rb") as stream:
            assert trace.Reader(stream).start.rows, "it started from a journal"

    monkeypatch.setattr(Membership, "on_join", lambda self, sender, message: None)
    code, printed = infra("replay", homes[0])
    assert code == 1
    for name in (PREVIOUS_NAME, FILE_NAME):
        with (homes[0] / name).open("rb") as stream:
            told = [getattr(entry.event, "message", None) for entry in trace.Reader(stream)]
        joined = next(number for number, message in enumerate(told) if isinstance(message, Join))
        assert f"{name}: other effects at event {joined}, MessageReceived of Join" in printed


@pytest.mark.trio
async def test_nothing_is_recorded_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with mesh(tmp_path, 1) as (node,):
        home = node.config.home
    assert not list(home.glob("trace*"))


@pytest.mark.trio
async def test_a_trace_that_is_full_ends_and_the_node_goes_on(
    tmp_path: Path, infra: Infra, caplog: pytest.LogCaptureFixture
) -> None:
    size = 10_000
    async with mesh(tmp_path, 2, trace_bytes=size) as (node, _):
        await until(lambda: "the trace is full: it ends here" in caplog.messages)
        job = await submit(node, SQUARES, {"items": [1, 2]}, Ed25519Signer(secrets.token_bytes(32)))
        assert (await ended(node, job, node.peer_id)).status == "success"
    assert all((tmp_path / f"node{number}" / FILE_NAME).stat().st_size <= size for number in range(2))
    code, printed = infra("replay", tmp_path / "node0")
    assert (code, printed.rpartition(", ")[2]) == (0, "identical effects\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_takes_no_more_ends_the_trace_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder.begin(tmp_path, start_of(), PLENTY)
    with Path("/dev/full").open("wb", buffering=0) as full:
        recorder._file = full
        for _, event in life()[:3]:
            recorder.add(start_of().now, event, ())
    recorder.close()
    assert caplog.messages == ["the trace ends here"]


# -- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One with a recorded life."""
    (tmp_path / "node.key").write_bytes(SEED)
    key = Ed25519Signer(SEED)
    parts, _ = record(start_of(peer=key.peer_id), life(), key)
    (tmp_path / FILE_NAME).write_bytes(b"".join(parts))
    return tmp_path


def test_a_whole_trace(home: Path, infra: Infra) -> None:
    assert infra("replay", home) == (0, f"{home / FILE_NAME}: {len(life())} events replayed, identical effects\n")


def test_a_torn_trace(home: Path, infra: Infra) -> None:
    (home / FILE_NAME).write_bytes((home / FILE_NAME).read_bytes()[:-3])
    code, printed = infra("replay", home)
    assert code == 0
    assert f"{len(life()) - 1} events replayed, identical effects; the last entry is torn" in printed


def test_a_damaged_trace(home: Path, infra: Infra) -> None:
    damaged = bytearray((home / FILE_NAME).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (home / FILE_NAME).write_bytes(damaged)
    code, printed = infra("replay", home)
    assert code == 1
    assert printed.startswith(f"error: {home / FILE_NAME}: is damaged at byte ")
    assert printed.count("\n") == 1


def test_other_code(home: Path, infra: Infra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probing, "on_ping", lambda self, sender, message: 1 / 0)
    code, printed = infra("replay", home)
    assert code == 1
    assert f"other effects at event {PING_AT}, MessageReceived of Ping" in printed
    assert "it raises an error now" in printed


def test_a_trace_without_its_key(home: Path, infra: Infra) -> None:
    (home / "node.key").unlink()
    code, printed = infra("replay", home)
    assert code == 2
    assert "node.key" in printed
    assert not (home / "node.key").exists()


def test_a_trace_of_another_node(home: Path, infra: Infra) -> None:
    (home / "node.key").write_bytes(bytes(32))
    code, printed = infra("replay", home)
    assert code == 1
    assert f"this home is {peer_id_at(home)}" in printed


def test_a_home_without_a_trace(tmp_path: Path, infra: Infra) -> None:
    code, printed = infra("replay", tmp_path)
    assert code == 2
    assert "infra up --trace" in printed
