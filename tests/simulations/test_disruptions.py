"""Each way in which a machine goes down: what it keeps, what it had done, when it is back."""

from __future__ import annotations

import pytest

from protocol.effects import Effect, Record, Send
from protocol.events import ClockObserved, LeaveAsked, MessageReceived, PeerLost, Started
from protocol.messages import Ack
from simulations.faults import FaultRates
from simulations.machines import EPOCH_MS, Machine
from simulations.world import World
from tests.simulations.fakes import do, peer_of, run_ms, world_of

ROW = Record("table", b"key", b"value")


def world_with(seed: int = 1, **rates: float) -> World:
    return world_of(5, seed=seed, bootstraps=1, faults=FaultRates(**rates), faults_s=60.0)


def until(world: World, kind: str) -> None:
    """Let the world's faults happen until one of ``kind`` has."""
    world.disruptions.plan()
    while not world.faults.counts[kind]:
        run_ms(world, 1)


def acks(to: Machine, count: int) -> list[Effect]:
    return [Send(to.peer_id, Ack(number=number, wall_ms=0)) for number in range(count)]


def heard(machine: Machine) -> int:
    return len(peer_of(machine).heard_of(MessageReceived))


def test_a_crash_before_the_sync_keeps_nothing_and_says_nothing() -> None:
    world = world_with(crash_unsynced=1.0)
    one, other, *_ = world.machines.all
    do(world, other, *acks(one, 1))
    assert other.alive, "a call without records has nothing to lose"
    one.addresses.add(other.peer_id)
    do(world, one, *acks(other, 5), ROW)
    assert not one.alive
    run_ms(world, 20_000)
    assert heard(other) == 0
    assert one.alive
    assert peer_of(one).restored is None
    assert world.faults.counts["crash_unsynced"] == 1


def test_a_crash_midway_keeps_all_records_and_says_some_of_the_rest() -> None:
    """Over many tries the effects that were carried out are the first few, from none of them to all."""
    said: set[int] = set()
    for seed in range(40):
        world = world_with(seed, crash_midway=1.0)
        one, other, *_ = world.machines.all
        one.addresses.add(other.peer_id)
        do(world, one, *acks(other, 3), ROW)
        assert not one.alive
        run_ms(world, 20_000)
        assert peer_of(one).restored == (("table", b"key", b"value"),)
        messages = [event.message for event in peer_of(other).heard_of(MessageReceived)]  # type: ignore[attr-defined]
        assert [message.number for message in messages] == list(range(len(messages)))
        said.add(len(messages))
    assert said == {0, 1, 2, 3}


def test_a_power_cut_takes_all_machines_at_once_and_all_come_back_with_their_journals() -> None:
    world = world_with(power_cut_per_s=0.1, wipe=1.0, gone=1.0, long_down=1.0)
    for machine in world.machines.all:
        do(world, machine, ROW)
    until(world, "power_cut")
    assert world.machines.alive == []
    run_ms(world, 66_000)
    assert len(world.machines.alive) == 5
    assert {peer_of(machine).restored for machine in world.machines.all} == {(("table", b"key", b"value"),)}


@pytest.mark.parametrize(("rates", "down_s"), [({}, (0.5, 15)), ({"long_down": 1.0}, (60, 240))])
def test_a_machine_is_down_for_seconds_or_for_minutes(rates: dict[str, float], down_s: tuple[float, float]) -> None:
    world = world_with(crash_per_s=0.001, **rates)
    one = world.machines.all[0]
    do(world, one, ROW)
    world.disruptions.crash(one)
    run_ms(world, int(down_s[0] * 1_000) - 1)
    assert not one.alive
    run_ms(world, int((down_s[1] - down_s[0]) * 1_000) + 2)
    assert one.alive
    assert peer_of(one).restored is not None
    assert set(world.faults.never_happened()) == {"crash"}


def test_a_wipe_takes_the_journal_too() -> None:
    world = world_with(crash_per_s=0.001, wipe=1.0)
    one = world.machines.all[0]
    store = one.store
    do(world, one, ROW)
    world.disruptions.crash(one)
    run_ms(world, 20_000)
    assert one.store != store
    assert peer_of(one).restored is None


def test_a_machine_that_is_gone_stays_so_unless_it_is_a_bootstrap() -> None:
    world = world_with(crash_per_s=0.001, gone=1.0)
    for machine in world.machines.all[:2]:
        world.disruptions.crash(machine)
    run_ms(world, 300_000)
    assert [machine.alive for machine in world.machines.all[:2]] == [True, False]
    assert world.disruptions.over is False, "the faults have not ended"
    world.disruptions.end()
    assert world.disruptions.over is True


def test_a_call_that_starts_a_machine_may_be_the_one_in_which_it_crashes() -> None:
    world = world_with(crash_unsynced=1.0)
    one = world.machines.all[0]
    original = world.build_peer

    def build(**given: object) -> object:
        peer = original(**given)
        peer.script = [ROW]
        return peer

    world.build_peer = build
    world.disruptions.crash(one)
    run_ms(world, 120_000)
    assert world.faults.counts["crash_unsynced"] > 1
    assert one.journal.rows() == ()
    world.disruptions.end()
    run_ms(world, 20_000)
    assert one.alive
    assert [type(event) for _, event in peer_of(one).heard[:1]] == [Started]
    assert one.journal.rows() == (("table", b"key", b"value"),)


def test_the_others_are_told_of_a_crash_in_the_middle_of_a_call() -> None:
    world = world_with(crash_midway=1.0)
    one, other, *_ = world.machines.all
    other.addresses.add(one.peer_id)
    do(world, other, *acks(one, 1))
    run_ms(world, 1_000)
    do(world, one, ROW)
    run_ms(world, 1_000)
    assert len(peer_of(other).heard_of(PeerLost)) == 1


# -- what a crash takes from the disk


def test_of_a_torn_write_nothing_is_left() -> None:
    world = world_with(torn_write=1.0)
    one, other, *_ = world.machines.all
    world.faults.active = False
    do(world, one, Record("table", b"old", b"value"))
    world.faults.active = True
    do(world, one, Record("table", b"old", None), Record("table", b"new", b"value"), *acks(other, 1))
    assert not one.alive
    run_ms(world, 20_000)
    assert peer_of(one).restored == (("table", b"old", b"value"),)
    assert heard(other) == 0
    assert world.faults.counts["torn_write"] == 1


def test_a_disk_that_lied_has_lost_the_last_syncs_and_is_another_store() -> None:
    """The first of these rows survive, as a prefix in the order of their syncs, and never all of them."""
    left: set[int] = set()
    for seed in range(40):
        world = world_with(seed, crash_per_s=0.001, lost_write=1.0)
        one = world.machines.all[0]
        store = one.store
        for number in range(4):
            do(world, one, Record("table", bytes([number]), b"value"))
        do(world, one, Record("table", b"\0", None))
        world.disruptions.crash(one)
        run_ms(world, 20_000)
        assert peer_of(one).given["profile"].store == one.store != store
        rows = [key for _, key, _ in peer_of(one).restored or ()]
        assert rows == [bytes([number]) for number in range(len(rows))], "what was removed last is there again"
        left.add(len(rows))
    assert left == {0, 1, 2, 3, 4}


def test_a_lost_journal_leaves_the_blobs_and_the_key() -> None:
    world = world_with(crash_per_s=0.001, stale_incarnation=1.0)
    one = world.machines.all[0]
    store, peer_id = one.store, one.peer_id
    one.disk.add("blob")
    world.disruptions.crash(one)
    run_ms(world, 20_000)
    assert world.faults.counts["stale_incarnation"] == 0, "there was nothing to lose"
    do(world, one, ROW)
    world.disruptions.crash(one)
    run_ms(world, 20_000)
    assert world.faults.counts["stale_incarnation"] == 1
    assert (one.peer_id, one.disk) == (peer_id, {"blob"})
    assert one.store != store
    assert peer_of(one).restored is None


def test_a_full_disk_ends_the_node_at_its_next_record_until_there_is_room() -> None:
    world = world_with(disk_full_per_s=5.0)
    world.disruptions.plan()
    while not world.faults.counts["disk_full"]:
        for machine in world.machines.alive:
            if machine.alive and world.machines.alive[3:]:
                do(world, machine, *acks(world.machines.all[0], machine.index > 0), ROW)
        run_ms(world, 100)
    down = next(machine for machine in world.machines.all if not machine.alive)
    rows = down.journal.rows()
    world.disruptions.end()
    run_ms(world, 30_000)
    assert down.alive
    assert down.journal.rows() == rows


# -- who comes and goes


def test_a_third_says_goodbye_and_comes_back_with_its_journals() -> None:
    world = world_with(mass_leave_per_s=0.2)
    for machine in world.machines.all:
        do(world, machine, ROW)
    before = {machine.index: peer_of(machine) for machine in world.machines.all}
    until(world, "mass_leave")
    run_ms(world, 60)
    away = [machine for machine in world.machines.all if not machine.alive]
    assert len(away) == 2
    assert all(before[machine.index].heard_of(LeaveAsked) for machine in away)
    world.disruptions.end()
    run_ms(world, 41_000)
    assert all(peer_of(machine).restored for machine in away)


def test_a_group_of_new_machines_joins() -> None:
    world = world_with(mass_join_per_s=0.2)
    until(world, "mass_join")
    assert len(world.machines.all) > 5
    assert not world.disruptions.over
    world.disruptions.end()
    run_ms(world, 3_000)
    assert all(machine.alive for machine in world.machines.all)
    assert peer_of(world.machines.all[5]).given["bootstrap"] == (world.machines.all[0].peer_id,)


# -- clocks


def walls(machine: Machine, world: World) -> list[int]:
    """How far off the machine's clock was, each time it was read."""
    heard = [(now, event) for now, event in peer_of(machine).heard if isinstance(event, ClockObserved)]
    return [event.wall - (EPOCH_MS + now // 1_000_000) for now, event in heard]


def test_a_clock_jumps_and_is_set_right_again() -> None:
    world = world_of(5, faults=FaultRates(clock_jump_per_s=0.2), faults_s=60.0, clock_every_s=1.0)
    until(world, "clock_jump")
    run_ms(world, 90_000)
    off = [offset for machine in world.machines.all for offset in walls(machine, world)]
    assert any(abs(offset) > 60_000 for offset in off)
    assert all(abs(offset) <= 3_600_000 for offset in off)
    assert [walls(machine, world)[-1] for machine in world.machines.all] == [0] * 5
    assert any(machine.clock_was_wrong for machine in world.machines.all)


def test_a_drifting_clock_goes_ever_further_off_until_the_faults_end() -> None:
    world = world_of(3, faults=FaultRates(drift=1.0), faults_s=60.0, clock_every_s=1.0)
    run_ms(world, 59_000)
    for machine in world.machines.all:
        off = [abs(offset) for offset in walls(machine, world)]
        assert off == sorted(off)
        assert 0 < off[-1] <= 0.05 * 59_000
    world.disruptions.end()
    run_ms(world, 2_000)
    assert [walls(machine, world)[-1] for machine in world.machines.all] == [0, 0, 0]
