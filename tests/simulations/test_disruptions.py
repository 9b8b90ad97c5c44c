"""Each way in which a machine goes down: what it keeps, what it had done, when it is back."""

from __future__ import annotations

import pytest

from protocol.effects import Effect, Record, Send
from protocol.events import MessageReceived, PeerLost, Started
from protocol.messages import Ack
from simulations.faults import FaultRates
from simulations.machines import Machine
from simulations.world import World
from tests.simulations.fakes import do, peer_of, run_ms, world_of

ROW = Record("table", b"key", b"value")


def world_with(**rates: float) -> World:
    return world_of(5, bootstraps=1, faults=FaultRates(**rates), faults_s=60.0)


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
        world = world_with(crash_midway=1.0)
        world.rng.seed(seed)
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
    world.disruptions.plan()
    while not world.faults.counts["power_cut"]:
        run_ms(world, 1)
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
