from __future__ import annotations

from protocol.effects import CloseLink, KeepLink, LearnAddresses, Send
from protocol.events import Event, MessageReceived, PeerLost
from protocol.messages import Ack
from simulations.faults import FaultRates
from simulations.machines import Machine
from tests.simulations.fakes import do, peer_of, run_ms, world_of


def ack(to: Machine, number: int) -> Send:
    return Send(to.peer_id, Ack(number=number, wall_ms=0))


def numbers(machine: Machine) -> list[int]:
    heard = [event for event in peer_of(machine).heard_of(MessageReceived) if isinstance(event, MessageReceived)]
    return [event.message.number for event in heard if isinstance(event.message, Ack)]


def lost(machine: Machine) -> list[Event]:
    return peer_of(machine).heard_of(PeerLost)


def test_the_first_message_takes_a_handshake_and_the_next_only_the_latency() -> None:
    world = world_of(2)
    one, other = world.machines.all
    do(world, one, ack(other, 1))
    run_ms(world, 100)
    do(world, one, ack(other, 2))
    run_ms(world, 100)
    times = [now / 1e6 for now, event in peer_of(other).heard if isinstance(event, MessageReceived)]
    assert [round(time) for time in times] == [20, 110]


def test_messages_of_one_pair_never_overtake_each_other() -> None:
    world = world_of(2, jitter_ms=500, faults=FaultRates(stall=0.2, duplicate=0.2))
    one, other = world.machines.all
    for number in range(200):
        do(world, one, ack(other, number))
        run_ms(world, 1)
    run_ms(world, 20_000)
    assert numbers(other) == sorted(numbers(other))
    assert set(numbers(other)) == set(range(200))
    assert len(numbers(other)) == 200 + world.faults.counts["duplicate"] > 200
    assert world.faults.counts["stall"] > 0


def test_dropped_messages_are_counted_and_gone() -> None:
    world = world_of(2, faults=FaultRates(drop=0.3))
    one, other = world.machines.all
    for number in range(200):
        do(world, one, ack(other, number))
    run_ms(world, 1_000)
    assert len(numbers(other)) == 200 - world.faults.counts["drop"] < 200


def test_a_message_overtakes_what_is_on_its_way() -> None:
    world = world_of(2, jitter_ms=200, faults=FaultRates(reorder=0.2))
    one, other = world.machines.all
    do(world, one, ack(other, 0))
    run_ms(world, 1_000)
    assert world.faults.counts["reorder"] == 0, "there was nothing to overtake"
    for number in range(1, 100):
        do(world, one, ack(other, number))
        run_ms(world, 2)
    run_ms(world, 5_000)
    heard = numbers(other)
    assert sorted(heard) == list(range(100))
    late = [number for position, number in enumerate(heard) if number < max(heard[:position], default=0)]
    assert late
    assert world.faults.counts["reorder"] > 5


def test_an_old_message_comes_again_also_to_the_next_boot() -> None:
    world = world_of(2, faults=FaultRates(replay=1.0))
    one, other = world.machines.all
    do(world, one, ack(other, 1))
    run_ms(world, 1_000)
    assert numbers(other) == [1]
    assert world.faults.counts["replay"] == 0, "not before it is there again"
    world.machines.crash(other)
    world.machines.start(other)
    run_ms(world, 60_000)
    assert numbers(other) == [1]
    assert world.faults.counts["replay"] == 1
    do(world, one, ack(other, 2))
    run_ms(world, 500)
    world.disruptions.end()
    run_ms(world, 60_000)
    assert numbers(other) == [1, 2]


def test_faults_stop_when_told_to() -> None:
    world = world_of(2, faults=FaultRates(drop=1.0))
    one, other = world.machines.all
    world.faults.active = False
    do(world, one, ack(other, 1))
    run_ms(world, 100)
    assert numbers(other) == [1]


def test_a_crash_is_seen_by_those_connected_after_what_was_sent_before_it() -> None:
    world = world_of(3)
    one, other, stranger = world.machines.all
    do(world, one, ack(other, 1))
    run_ms(world, 100)
    do(world, one, ack(other, 2))
    world.machines.crash(one)
    run_ms(world, 100)
    assert numbers(other) == [1, 2]
    assert isinstance(peer_of(other).heard[-1][1], PeerLost)
    assert [event.peer for event in lost(other) if isinstance(event, PeerLost)] == [one.peer_id]
    assert lost(stranger) == []


def test_sending_to_a_dead_machine_ends_in_one_peer_lost() -> None:
    world = world_of(2)
    one, other = world.machines.all
    world.machines.crash(other)
    do(world, one, ack(other, 1), ack(other, 2))
    run_ms(world, 900)
    assert lost(one) == []
    run_ms(world, 4_000)
    assert len(lost(one)) == 1


def test_what_was_on_its_way_to_a_crashed_machine_does_not_reach_its_next_boot() -> None:
    world = world_of(2)
    one, other = world.machines.all
    do(world, one, ack(other, 1))
    world.machines.crash(other)
    world.machines.start(other)
    run_ms(world, 1_000)
    assert numbers(other) == []


def test_a_peer_without_an_address_is_reached_only_over_its_own_connection() -> None:
    world = world_of(2, bootstraps=0)
    one, other = world.machines.all
    do(world, one, ack(other, 1))
    run_ms(world, 100)
    assert len(lost(one)) == 1
    do(world, other, LearnAddresses(one.peer_id, ("/memory/0",)), ack(one, 2))
    run_ms(world, 100)
    do(world, one, ack(other, 3))
    run_ms(world, 100)
    assert numbers(one) == [2]
    assert numbers(other) == [3]


def test_a_cut_loses_what_is_on_its_way_and_both_ends_hear_of_it() -> None:
    world = world_of(2)
    one, other = world.machines.all
    do(world, one, ack(other, 1))
    run_ms(world, 100)
    do(world, one, ack(other, 2))
    world.network.cut(one, other.peer_id)
    run_ms(world, 100)
    assert numbers(other) == [1]
    assert len(lost(one)) == len(lost(other)) == 1


def test_closing_lets_what_was_sent_arrive_first() -> None:
    world = world_of(2)
    one, other = world.machines.all
    do(world, one, ack(other, 1), CloseLink(other.peer_id))
    run_ms(world, 100)
    assert numbers(other) == [1]
    assert isinstance(peer_of(other).heard[-1][1], PeerLost)


def test_an_idle_connection_goes_in_silence_unless_it_is_kept() -> None:
    world = world_of(3)
    one, idle, kept = world.machines.all
    do(world, one, ack(idle, 1), KeepLink(kept.peer_id, True), ack(kept, 1))
    run_ms(world, 130_000)
    world.machines.crash(one)
    run_ms(world, 1_000)
    assert lost(idle) == []
    assert len(lost(kept)) == 1
