from __future__ import annotations

from typing import Any

import pytest

from protocol.effects import FetchBlobs, Record, StartRun, StopRun
from protocol.events import BlobsFailed, BlobsFetched, Event, RunFailed, RunFinished, WakeupReached
from protocol.records import StageSpec
from protocol.wire import Link, Role, Task
from simulations.faults import FaultRates
from simulations.machines import Machine
from simulations.world import World
from tests.simulations.fakes import do, peer_of, run_ms, world_of


@pytest.fixture
def world() -> World:
    return world_of(3, bandwidth=(1_000_000, 1_000_000))


def kept(table: str, key: int) -> Record:
    return Record(table, bytes([key]), table.encode())


def job_input(world: World, parts: int = 4) -> Link:
    return world.library.job_input("photo", parts=parts, photo_bytes=1_000_000).link


def stage(world: World) -> StageSpec:
    manifest = world.library.make("manifest", size=1000).link
    return StageSpec(name="", model="m", manifest=manifest, split="tile", merge="concat-json", timeout_ms=10_000)


def fetch(link: Link, *sources: Machine, deep: bool = False) -> FetchBlobs:
    return FetchBlobs(1, (link,), tuple(source.peer_id for source in sources), 0, deep)


def start(world: World, run: int = 1, sources: tuple[Machine, ...] = (), **task: Any) -> StartRun:
    return StartRun(
        run=run,
        job=b"j" * 32,
        task=Task(**task),
        attempt=1,
        stage=stage(world),
        input=job_input(world),
        shards=4,
        split=None,
        parts=(),
        sources=tuple(source.peer_id for source in sources),
    )


def answers(machine: Machine) -> list[Event]:
    kinds = (BlobsFetched, BlobsFailed, RunFinished, RunFailed)
    return [event for _, event in peer_of(machine).heard if isinstance(event, kinds)]


def allow_runs(world: World) -> None:
    """These tests are about machines: whether a lease allows the run is not the question."""
    world.checkers.runs._is_leased = lambda *_: True  # type: ignore[method-assign]


def test_a_fetch_takes_the_blob_from_whoever_has_it(world: World) -> None:
    link = job_input(world)
    one, empty, full = world.machines.all
    full.disk.add(link.cid)
    do(world, one, fetch(link, empty, full))
    run_ms(world, 1_000)
    assert answers(one) == [BlobsFetched(1)]
    assert link.cid in one.disk


def test_a_deep_fetch_brings_what_the_blob_links_to_and_takes_its_time(world: World) -> None:
    link = job_input(world)
    one, other, _ = world.machines.all
    other.disk.update(world.library.with_links((link.cid,)))
    do(world, one, fetch(link, other, deep=True))
    run_ms(world, 900)
    assert answers(one) == []
    run_ms(world, 200)
    assert answers(one) == [BlobsFetched(1)]
    assert other.disk == one.disk


def test_a_fetch_of_what_nobody_has_fails(world: World) -> None:
    one, other, _ = world.machines.all
    do(world, one, fetch(job_input(world), other))
    run_ms(world, 1_000)
    assert [type(event) for event in answers(one)] == [BlobsFailed]


def test_a_source_that_crashes_in_the_middle_is_replaced_by_the_next(world: World) -> None:
    photo = world.library.make("photo", size=1_000_000).link
    one, first, second = world.machines.all
    first.disk.add(photo.cid)
    second.disk.add(photo.cid)
    do(world, one, fetch(photo, first, second))
    run_ms(world, 500)
    world.machines.crash(first)
    run_ms(world, 3_000)
    assert answers(one) == [BlobsFetched(1)]


def test_a_run_is_answered_once_with_the_same_output_on_every_machine(world: World) -> None:
    allow_runs(world)
    one, other, _ = world.machines.all
    for machine in (one, other):
        machine.disk.update(world.library.with_links((job_input(world).cid, stage(world).manifest.cid)))
        do(world, machine, start(world, role=Role.SPLIT))
    run_ms(world, 20_000)
    (first,), (second,) = answers(one), answers(other)
    assert isinstance(first, RunFinished)
    assert isinstance(second, RunFinished)
    assert first.output == second.output
    assert first.shards == 4
    assert set(world.library.with_links((first.output.cid,))) <= one.disk


def test_a_run_whose_input_nobody_has_fails_by_the_machines_fault(world: World) -> None:
    allow_runs(world)
    one, other, _ = world.machines.all
    do(world, one, start(world, role=Role.SPLIT, sources=(other,)))
    run_ms(world, 10_000)
    (answer,) = answers(one)
    assert isinstance(answer, RunFailed)
    assert not answer.counts


def test_a_stopped_run_still_comes_back_once(world: World) -> None:
    allow_runs(world)
    one = world.machines.all[0]
    one.disk.update(world.library.with_links((job_input(world).cid, stage(world).manifest.cid)))
    do(world, one, start(world, role=Role.SHARD), StopRun(1))
    run_ms(world, 20_000)
    (answer,) = answers(one)
    assert isinstance(answer, RunFailed)
    assert one.runs == {}


def test_injected_failures_leave_the_task_a_chance() -> None:
    world = world_of(1, faults=FaultRates(run_failure=1.0, machine_failure=1.0))
    allow_runs(world)
    one = world.machines.all[0]
    one.disk.update(world.library.with_links((job_input(world).cid, stage(world).manifest.cid)))
    for number in range(1, 6):
        do(world, one, start(world, run=number, role=Role.SPLIT))
        run_ms(world, 20_000)
    assert [type(event) for event in answers(one)] == [RunFailed] * 3 + [RunFinished] * 2


def test_a_crash_ends_all_work_without_an_answer_and_a_restart_is_a_new_peer(world: World) -> None:
    allow_runs(world)
    one = world.machines.all[0]
    before = peer_of(one)
    one.disk.update(world.library.with_links((job_input(world).cid, stage(world).manifest.cid)))
    do(world, one, start(world, role=Role.SHARD), kept("b", 2), kept("a", 1), kept("b", 1), Record("b", b"\2", None))
    disk = set(one.disk)
    world.machines.crash(one)
    run_ms(world, 20_000)
    world.machines.start(one)
    run_ms(world, 20_000)
    assert answers(one) == []
    assert peer_of(one) is not before
    assert peer_of(one).restored == (("a", b"\1", b"a"), ("b", b"\1", b"b"))
    assert one.disk == disk


def test_a_wiped_disk_has_no_blobs_no_journal_and_another_store(world: World) -> None:
    one = world.machines.all[0]
    one.disk.add("blob")
    do(world, one, kept("a", 1))
    store = one.store
    world.machines.crash(one)
    world.machines.wipe(one)
    world.machines.start(one)
    assert one.disk == set()
    assert one.store != store
    assert peer_of(one).restored is None


def test_only_the_earliest_wakeup_counts(world: World) -> None:
    one = world.machines.all[0]
    peer = peer_of(one)
    peer.wakeup = 50_000_000
    do(world, one)
    peer.wakeup = 20_000_000
    do(world, one)
    planned = len(world.agenda)
    do(world, one)
    assert len(world.agenda) == planned
    world.agenda.run_until(100_000_000)
    assert [now for now, event in peer.heard if isinstance(event, WakeupReached)] == [20_000_000]
