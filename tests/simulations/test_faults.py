"""Each kind of fault alone, in a world of real peers: it happens, and no rule is broken."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from protocol.events import GarbageReceived, MessageReceived
from simulations.faults import FaultRates, kind_of
from simulations.options import QUICK_LIMITS, Options, draw
from simulations.simulation import simulate
from simulations.world import World

FIELDS = FaultRates.__struct_fields__
RATE = {"crash_per_s": 0.5, "cut_per_s": 2.0, "crash_unsynced": 0.1, "torn_write": 0.1, "crash_midway": 0.1}
NEEDS_CRASHES = ("gone", "wipe", "stale_incarnation", "lost_write", "long_down")


def alone(field: str, seed: int) -> Options:
    rates = {field: RATE.get(field, 0.2)}
    if field in NEEDS_CRASHES:
        rates["crash_per_s"] = 0.5
    if field == "liar" or field.startswith("lie_"):
        rates = {"liar": 0.4, field: 0.4 if field in ("liar", "lie_bid", "lie_forged", "lie_altered") else 0.05}
    return Options(
        seed=seed,
        peers=9,
        jobs=2,
        first_job_s=3.0,
        faults_s=20.0,
        shards=(4, 12),
        limits=QUICK_LIMITS,
        lookups_max=20,
        faults=FaultRates(**rates),
    )


@pytest.mark.parametrize("field", FIELDS)
def test_each_kind_alone_happens_and_does_no_harm(field: str) -> None:
    happened = 0
    for seed in range(1, 4):
        result, _ = simulate(alone(field, seed))
        assert result.passed, f"seed {seed}: {result.problem}"
        happened += result.faults[kind_of(field)]
    assert happened


def test_there_are_many_kinds_and_every_one_of_them_is_drawn_and_described() -> None:
    assert len(FIELDS) >= 20
    drawn = [msgspec.structs.asdict(draw(seed).faults) for seed in range(200)]
    page = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
    described = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE))))
    for field in FIELDS:
        share = sum(rates[field] > 0 for rates in drawn) / len(drawn)
        assert 0.15 < share < 0.85, field
        assert kind_of(field) in described, field


class Heard(World):
    """Remembers the lies that honest peers were told."""

    def turn(self, machine, event, number=0, is_lie=False):  # type: ignore[no-untyped-def]
        if is_lie:
            assert isinstance(event, MessageReceived | GarbageReceived)
            LIES.append((self.machines[event.sender].index, machine.index, event))
        super().turn(machine, event, number, is_lie)


LIES: list[tuple[int, int, MessageReceived | GarbageReceived]] = []


@pytest.mark.parametrize(
    ("field", "kinds"),
    [
        ("lie_bid", {"Bid"}),
        ("lie_forged", {"Receipts"}),
        ("lie_altered", {"Receipts"}),
        ("lie_record", {"Ping", "Join", "Neighbour"}),
        ("lie_garbage", {"GarbageReceived"}),
        ("lie_stolen", {"Ping", "Join", "Neighbour", "StorePointer", "HoldAnswer", "Receipts"}),
        (
            "lie_ballot",
            {"Revoke", "ReceiptsAck", "Offer", "Announce", "Prepare", "Accept", "Leads", "Nack", "Decided", "Renew"},
        ),
    ],
)
def test_liars_tell_their_lies_to_others_and_the_bootstrap_peers_do_not_lie(
    field: str, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.simulation.World", Heard)
    told: set[str] = set()
    for seed in range(1, 5):
        LIES.clear()
        result, world = simulate(alone(field, seed))
        assert result.passed, result.problem
        assert not any(machine.liar for machine in world.machines.all[:3])
        assert all(world.machines.all[source].liar for source, _, _ in LIES)
        for _, target, event in LIES:
            if not world.machines.all[target].liar:
                told.add(type(event.message if isinstance(event, MessageReceived) else event).__name__)
    assert told
    assert told <= kinds
    assert len(told) >= min(2, len(kinds))
