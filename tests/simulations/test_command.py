from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from simulations import __main__ as command
from simulations.faults import FaultRates
from simulations.options import Options, draw


def small(seed: int, **options: object) -> Options:
    return replace(draw(seed), peers=6, jobs=1, cancelled_jobs=0.0, **options)


def test_an_exploration_that_passes_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "draw", lambda seed: small(seed, faults=FaultRates(drop=0.05, power_cut_per_s=0.1)))
    assert command.main(["explore", "--seeds", "6", "--first-seed", "40"]) == 0
    *_, executions, last = capsys.readouterr().out.splitlines()
    assert " of them again (" in executions
    assert last.startswith("6 seeds, 0 failed: ")
    assert "events/s" in last
    assert "times processor time" in last


def test_a_failing_seed_prints_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hopeless = FaultRates(drop=1.0)
    monkeypatch.setattr(
        command, "draw", lambda seed: small(seed, faults=hopeless, faults_s=8.0, patience_s=0.0, task_ms=60_000)
    )
    assert command.main(["explore", "--seeds", "2", "--first-seed", "7", "--jobs-parallel", "1"]) == 1
    printed = capsys.readouterr()
    assert "python -m simulations replay 7\n" in printed.err
    assert "python -m simulations replay 8\n" in printed.err
    assert printed.out.splitlines()[-1].startswith("2 seeds, 2 failed: ")

    assert command.main(["replay", "7"]) == 1
    printed = capsys.readouterr()
    assert "FAILED: liveness: " in printed.out
    assert "peer 0" in printed.err
    assert printed.err.splitlines()[-1] == "replay: python -m simulations replay 7"


def test_a_fault_that_never_happens_fails_an_exploration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "draw", lambda seed: small(seed, faults=FaultRates(drop=0.01, straggler=1e-12)))
    assert command.main(["explore", "--seeds", "1", "--jobs-parallel", "1"]) == 1
    assert "never happened: straggler" in capsys.readouterr().err


def test_a_fault_that_never_happens_fails_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inert = {"main-job": lambda seed, peers, jobs: small(seed, faults=FaultRates(crash_per_s=1e-12))}
    monkeypatch.setattr(command, "SCENARIOS", inert)
    assert command.main(["run", "main-job", "--seed", "3"]) == 1
    printed = capsys.readouterr()
    assert "never happened: crash" in printed.out
    assert "replay: python -m simulations run main-job --peers 200 --seed 3 --jobs 4" in printed.err


def test_a_run_says_what_it_was_and_leaves_it_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SCENARIOS", {"main-job": lambda seed, peers, jobs: small(seed, faults=FaultRates())})
    assert command.main(["run", "main-job", "--seed", "3", "--json", "--out", str(tmp_path / "out")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["passed"] is True
    assert shown["figures"]["jobs_done"] == 1
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == shown
    assert json.loads((tmp_path / "out" / "options.json").read_text())["seed"] == 3
    assert "peer" in (tmp_path / "out" / "events.txt").read_text()


@pytest.mark.parametrize(
    "arguments", [["explore", "--seeds", "0"], ["run", "no-such"], ["replay", "-1"], ["replay", "x"], []]
)
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
