"""Routes that are gone for a while: nobody is told, and what is on its way waits, or is lost with its connection."""

from __future__ import annotations

from protocol.effects import Send
from protocol.events import MessageReceived, PeerLost
from simulations.decisions import NOBODY, Decision
from simulations.machines import Machine
from simulations.world import World
from tests.simulations.fakes import do, peer_of, run_ms, world_of
from tests.simulations.test_network import ack, lost, numbers


def split(world: World, kind: str, lasts_ms: int) -> tuple[Machine, Machine]:
    """Cut one machine off; returns it and another. The numbers that fit are looked for among decisions."""
    one, other = world.machines.all
    for number in range(1_000):
        decision = Decision(1, (kind, NOBODY, number))
        rng = decision.rng()
        far = rng.sample(range(2), rng.randint(1, 1))
        rng.randint(10_000, 15_000), rng.randint(200, 3_000)
        low, high = rng.choice(((500, 8_000), (8_000, 45_000)))
        if far == [0] and abs(rng.randint(low, high) - lasts_ms) < 500:
            world.network.routes.split(decision)
            return one, other
    raise AssertionError("no such decision")


def connected() -> World:
    world = world_of(2)
    one, other = world.machines.all
    do(world, one, ack(other, 0))
    run_ms(world, 1_000)
    return world


def test_what_is_sent_while_there_is_no_route_comes_when_it_is_back_in_order() -> None:
    world = connected()
    one, other = split(world, "partition", 4_000)
    assert world.faults.counts["partition"] == 0, "it has stopped nothing yet"
    do(world, one, ack(other, 1), ack(other, 2))
    do(world, other, ack(one, 3))
    run_ms(world, 3_000)
    assert (numbers(other), numbers(one)) == ([0], [])
    run_ms(world, 6_000)
    assert (numbers(other), numbers(one)) == ([0, 1, 2], [3])
    assert lost(one) == lost(other) == []
    assert world.faults.counts["partition"] == 1


def test_a_connection_that_is_silent_for_long_is_given_up_with_what_it_held() -> None:
    world = connected()
    one, other = split(world, "partition", 30_000)
    do(world, one, ack(other, 1))
    run_ms(world, 9_000)
    assert lost(one) == lost(other) == [], "nobody tells them"
    run_ms(world, 7_000)
    assert len(lost(one)) == len(lost(other)) == 1
    do(world, one, ack(other, 2))
    run_ms(world, 9_000)
    assert len(lost(one)) == 1, "a dial that nobody answers takes long"
    run_ms(world, 2_000)
    assert len(lost(one)) == 2
    run_ms(world, 10_000)
    do(world, one, ack(other, 3))
    run_ms(world, 1_000)
    assert numbers(other) == [0, 3]


def test_one_direction_may_be_gone_alone() -> None:
    world = connected()
    one, other = split(world, "one_way", 4_000)
    do(world, one, ack(other, 1))
    do(world, other, ack(one, 2))
    run_ms(world, 9_000)
    assert numbers(one) == [2]
    assert numbers(other) == [0], "it vanished"
    do(world, one, ack(other, 3))
    run_ms(world, 1_000)
    assert numbers(other) == [0, 3]
    assert world.faults.counts["one_way"] == 1


def test_a_crash_beyond_a_split_is_found_out_late() -> None:
    world = connected()
    one, other = split(world, "partition", 30_000)
    world.machines.crash(one)
    run_ms(world, 9_000)
    assert lost(other) == []
    run_ms(world, 8_000)
    assert len(lost(other)) == 1


def test_the_end_of_the_faults_heals_every_split() -> None:
    world = connected()
    one, other = split(world, "partition", 30_000)
    do(world, one, ack(other, 1))
    world.disruptions.end()
    run_ms(world, 4_000)
    assert numbers(other) == [0, 1]


def test_a_slow_network_is_several_times_as_slow_for_a_while() -> None:
    world = connected()
    one, other = world.machines.all
    world.network.routes.spike(Decision(1, ("spike", NOBODY, 1)))
    assert world.faults.counts["spike"] == 0
    began = world.agenda.now
    do(world, one, ack(other, 1))
    run_ms(world, 1_000)
    arrived = [now for now, event in peer_of(other).heard if isinstance(event, MessageReceived)][-1]
    assert 3 * 10 <= (arrived - began) / 1e6 <= 20 * 10
    assert world.faults.counts["spike"] == 1
    run_ms(world, 8_000)
    began = world.agenda.now
    do(world, one, Send(other.peer_id, ack(other, 2).message))
    run_ms(world, 15)
    assert numbers(other)[-1] == 2
    assert PeerLost not in [type(event) for _, event in peer_of(one).heard]
