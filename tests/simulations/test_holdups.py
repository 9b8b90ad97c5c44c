"""Machines that are slow or stand still: nothing is lost, and everything is late."""

from __future__ import annotations

from typing import Any

from protocol.events import ClockObserved, MessageReceived, PeerLost, WakeupReached
from simulations.decisions import NOBODY, Decision
from simulations.machines import Machine
from simulations.world import World
from tests.simulations.fakes import do, peer_of, run_ms, world_of
from tests.simulations.test_network import ack, lost, numbers


def settled(**options: Any) -> World:
    world = world_of(2, **options)
    do(world, world.machines.all[0], ack(world.machines.all[1], 0))
    do(world, world.machines.all[1], ack(world.machines.all[0], 0))
    run_ms(world, 11_000)
    return world


def hold_up(world: World, kind: str, at_least_ms: int, at_most_ms: int) -> tuple[Machine, Machine]:
    """Hold up machine 1 for about so long; returns the other, and it."""
    for number in range(10_000):
        decision = Decision(1, (kind, NOBODY, number))
        rng = decision.rng()
        victim, lasts = rng.choice([0, 1]), rng.randint(*((1_000, 20_000) if kind == "pause" else (1_000, 10_000)))
        if victim == 1 and at_least_ms <= lasts <= at_most_ms:
            getattr(world.holdups, kind)(decision)
            return world.machines.all[0], world.machines.all[1]
    raise AssertionError("no such decision")


def times(machine: Machine, kind: type) -> list[int]:
    return [now // 1_000_000 for now, event in peer_of(machine).heard if isinstance(event, kind)]


def test_a_machine_that_stands_still_hears_all_at_once_afterwards() -> None:
    world = settled()
    one, still = hold_up(world, "pause", 5_000, 5_200)
    assert world.faults.counts["pause"] == 0, "nothing has come"
    peer_of(still).wakeup = world.agenda.now + 1_000_000_000
    for number in range(1, 4):
        do(world, one, ack(still, number))
        run_ms(world, 1_000)
    assert numbers(still) == [0]
    run_ms(world, 2_300)
    assert numbers(still) == [0, 1, 2, 3]
    assert len(set(times(still, MessageReceived)[1:])) == 1
    assert world.faults.counts["pause"] == 1
    assert lost(one) == lost(still) == []


def test_its_clock_is_read_when_it_goes_on_and_its_timers_are_late() -> None:
    world = settled(clock_every_s=1.0)
    _, still = world.machines.all
    peer_of(still).wakeup = world.agenda.now + 2_000_000_000
    do(world, still)
    began = world.agenda.now // 1_000_000
    hold_up(world, "pause", 5_000, 5_200)
    run_ms(world, 6_000)
    (woken,) = times(still, WakeupReached)
    assert 5_000 <= woken - began <= 5_200
    walls = [event.wall for event in peer_of(still).heard_of(ClockObserved) if isinstance(event, ClockObserved)]
    assert walls == sorted(walls)
    read = [now for now in times(still, ClockObserved) if now > began]
    assert read[0] == woken


def test_others_give_up_a_machine_that_stands_still_for_long() -> None:
    world = settled()
    one, still = hold_up(world, "pause", 15_000, 20_000)
    run_ms(world, 14_000)
    assert len(lost(one)) == 1
    assert lost(still) == []
    run_ms(world, 7_000)
    assert [type(event) for _, event in peer_of(still).heard].count(PeerLost) == 1


def test_a_slow_machine_takes_its_time_for_each_event() -> None:
    world = settled()
    one, slow = hold_up(world, "slow", 8_000, 10_000)
    do(world, one, *(ack(slow, number) for number in range(1, 40)))
    run_ms(world, 900)
    assert len(numbers(slow)) < 20
    run_ms(world, 10_000)
    assert numbers(slow) == list(range(40))
    spread = times(slow, MessageReceived)[1:]
    assert len(set(spread)) > 5
    assert world.faults.counts["slow"] == 1
    assert slow.inbox is None


def test_a_crash_takes_what_waited() -> None:
    world = settled()
    one, still = hold_up(world, "pause", 5_000, 10_000)
    do(world, one, ack(still, 1))
    run_ms(world, 1_000)
    world.machines.crash(still)
    world.machines.start(still)
    run_ms(world, 20_000)
    assert numbers(still) == []
    assert world.faults.counts["pause"] == 0


def test_the_end_of_the_faults_lets_all_go_on() -> None:
    world = settled()
    one, still = hold_up(world, "pause", 15_000, 20_000)
    do(world, one, ack(still, 1))
    run_ms(world, 1_000)
    world.disruptions.end()
    assert numbers(still) == [0, 1]
