"""Faults are numbered decisions: any of them can be left out, and the others stay what they were."""

from __future__ import annotations

from msgspec.structs import replace

from simulations.decisions import Decisions, Key
from simulations.faults import FaultRates
from simulations.options import draw
from simulations.simulation import simulate

RATES = FaultRates(drop=0.05, duplicate=0.1, replay=0.02, crash_per_s=0.5, straggler=0.1)


def struck(decisions: Decisions, opportunities: int = 500) -> list[Key]:
    keys = []
    for _ in range(opportunities):
        for machine in range(3):
            if (decision := decisions.draw("message", machine)) is not None:
                keys.append(decision.key)
    return keys


def test_the_shares_are_kept() -> None:
    kinds = [kind for kind, _, _ in struck(Decisions(RATES, seed=1), 10_000)]
    assert abs(kinds.count("drop") / 30_000 - 0.05) < 0.01
    assert abs(kinds.count("duplicate") / 30_000 - 0.1) < 0.01
    assert abs(kinds.count("replay") / 30_000 - 0.02) < 0.005


def test_a_subset_strikes_at_the_same_opportunities_with_the_same_details() -> None:
    everything = Decisions(RATES, seed=1)
    keys = struck(everything)
    some = keys[::3]
    again = Decisions(RATES, seed=1, only=some)
    assert struck(again) == some
    decision = Decisions(RATES, seed=1, only=some[:1])
    found = [one for _ in range(500) for m in range(3) if (one := decision.draw("message", m)) is not None]
    assert found[0].rng().random() == found[0].rng().random()


def test_one_machines_opportunities_do_not_move_anothers() -> None:
    decisions = Decisions(RATES, seed=1, only=struck(Decisions(RATES, seed=1)))
    busy = [decisions.draw("message", 0) for _ in range(100)]
    quiet = [decisions.draw("message", 1) for _ in range(100)]
    assert {one.key[1] for one in busy if one is not None} == {0}
    assert {one.key[1] for one in quiet if one is not None} == {1}


def test_moments_can_be_left_out_and_shortened_without_moving_the_others() -> None:
    everything = Decisions(RATES, seed=1).moments("crash", 60_000_000_000)
    assert len(everything) > 10
    shorter = Decisions(RATES, seed=1).moments("crash", 30_000_000_000)
    assert [at for at, _ in shorter] == [at for at, _ in everything if at < 30_000_000_000]
    third = everything[2]
    only = Decisions(RATES, seed=1, only=[third[1].key]).moments("crash", 60_000_000_000)
    assert [(at, decision.key) for at, decision in only] == [(third[0], third[1].key)]


def test_nothing_strikes_when_the_faults_have_ended_or_are_off() -> None:
    decisions = Decisions(RATES, seed=1)
    decisions.active = False
    assert struck(decisions) == []
    assert struck(Decisions(FaultRates(), seed=1)) == []
    assert Decisions(RATES, seed=1).enabled() == ("drop", "duplicate", "replay", "crash", "straggler")


def test_what_was_drawn_makes_the_same_world_again_as_a_schedule() -> None:
    options = draw(5)
    first, world = simulate(options)
    assert {one.key for one in world.faults.fired} <= set(world.faults.drawn)
    assert len(world.faults.fired) > 20
    second, again = simulate(replace(options, only=tuple(world.faults.drawn)))
    assert again.faults.fired == world.faults.fired
    assert second.trace_hash == first.trace_hash
