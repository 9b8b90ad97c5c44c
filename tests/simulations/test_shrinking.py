"""A failing world is made small: with a bug that needs two faults, these two are what is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from protocol.events import Started
from protocol.peer import Peer
from simulations import __main__ as command
from simulations.faults import FaultRates
from simulations.options import Options, draw
from simulations.shrinking import as_document, options_in, shrink
from simulations.simulation import simulate

MANY = FaultRates(drop=0.05, duplicate=0.05, stall=0.01, cut_per_s=1.0, crash_per_s=0.4, straggler=0.1, pause_per_s=0.2)


class Forgetful(Peer):
    """Raises in its third boot: a bug that two crashes of one machine bring to light, whatever else happens."""

    boots: dict[str, int]

    def handle(self, event: Any, *, now: Any) -> Any:
        if isinstance(event, Started):
            me = self.snapshot().peer_id
            Forgetful.boots[me] = Forgetful.boots.get(me, 0) + 1
            if Forgetful.boots[me] == 3:
                raise KeyError("planted")
        return super().handle(event, now=now)


def build(**given: Any) -> Peer:
    if given["now"] == 0:
        Forgetful.boots = {}
    return Forgetful(**given)


def failing(first_seed: int = 1) -> Options:
    for seed in range(first_seed, 30):
        options = replace(draw(seed), peers=6, jobs=2, faults_s=20.0, faults=MANY)
        if not simulate(options, build)[0].passed:
            return options
    raise AssertionError("no seed fails")


def test_what_is_left_is_what_the_failure_needs() -> None:
    """A start that only another crash puts at its moment may stay: no single decision can be left out."""
    found = []
    options = failing()
    for _ in range(3):
        shrunk = shrink(options, build_peer=build)
        assert shrunk is not None
        assert {one.key[0] for one in shrunk.schedule} == {"crash"}
        assert 2 <= len(shrunk.schedule) <= 4
        found.append((len(shrunk.schedule), len({one.where for one in shrunk.schedule}), shrunk.options.jobs))
        options = failing(options.seed + 1)
    assert (2, 1, 1) in found


def test_what_is_left_fails_in_the_same_way_and_can_be_kept() -> None:
    options = failing()
    before, world = simulate(options, build)
    assert len(world.faults.fired) > 50
    shrunk = shrink(options, build_peer=build)
    assert shrunk is not None
    assert shrunk.runs <= 200
    assert shrunk.options.jobs == 1
    assert shrunk.result.rule == before.rule
    assert "planted" in shrunk.result.problem

    again = options_in(json.dumps(as_document(shrunk)).encode())
    assert again == shrunk.options
    assert simulate(again, build)[0].trace_hash == shrunk.result.trace_hash


def test_a_budget_is_kept_and_what_was_found_until_then_fails_too() -> None:
    options = failing()
    shrunk = shrink(options, runs_max=12, build_peer=build)
    assert shrunk is not None
    assert shrunk.runs <= 12
    assert simulate(shrunk.options, build)[0].problem == shrunk.result.problem


def test_a_world_that_passes_is_not_shrunk() -> None:
    assert shrink(replace(draw(4), peers=6, jobs=1, faults=FaultRates())) is None


def hopeless(seed: int) -> Options:
    options = replace(draw(seed), peers=6, jobs=2, cancelled_jobs=0.0, faults=FaultRates(drop=0.2))
    return replace(options, faults_s=8.0, patience_s=0.0, task_ms=60_000)


def test_the_command_writes_a_schedule_that_can_be_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "draw", hopeless)
    assert command.main(["replay", "3", "--shrink", "--budget", "10", "--tail", "0", "--out", str(tmp_path)]) == 1
    file = tmp_path / "schedule-3.json"
    assert f"replay: python -m simulations replay --schedule {file}" in capsys.readouterr().err
    document = json.loads(file.read_text())
    assert document["problem"].startswith("liveness")
    assert document["options"]["jobs"] == 1
    assert command.main(["replay", "--schedule", str(file)]) == 1
    assert document["problem"] in capsys.readouterr().out


def test_an_exploration_shrinks_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "draw", hopeless)
    arguments = ["explore", "--seeds", "2", "--first-seed", "5", "--shrink", "--budget", "3", "--out", str(tmp_path)]
    assert command.main(arguments) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"schedule-5.json", "schedule-6.json"}
    assert "faults are left" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["replay"], ["replay", "3", "--schedule", "x"], ["replay", "--schedule", "x"]])
def test_a_replay_is_of_one_seed_or_one_schedule(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
