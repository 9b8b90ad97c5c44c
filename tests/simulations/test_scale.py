"""What the same work costs each peer as the mesh grows: small meshes, in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from simulations.__main__ import main
from simulations.scale import measure
from simulations.scale_figures import Plan, Rare, Size, Spread, judge, spread

QUICK = Plan(seconds=15.0, jobs=0, rare_jobs=2)
NONE = spread([])


def size(peers: int, messages: float, *, bids: float = 16.0, jobs: int = 1_000, done: int = 1_000) -> Size:
    return Size(
        peers=peers,
        window_s=60.0,
        jobs=jobs,
        done=done,
        messages_per_peer_s=messages,
        by_kind={},
        bids=Spread(mean=bids, least=4, median=bids, p99=bids, most=bids),
        bids_outside=0,
        rounds=NONE,
        announcements=NONE,
        award_s=NONE,
        job_s=NONE,
        lookups=0,
        lookups_found=0,
        mesh_size=NONE,
        rare=None,
        problem="",
        events=0,
        simulated_s=0.0,
        real_s=0.0,
        memory_mib=0.0,
        trace_hash="",
    )


def test_a_small_mesh_is_measured_whole() -> None:
    figures = measure(60, QUICK)
    assert figures.problem == ""
    assert figures.jobs > 0
    assert figures.done == figures.jobs
    assert figures.messages_per_peer_s == pytest.approx(sum(figures.by_kind.values()), abs=0.001)
    assert 4 <= figures.bids.mean <= 64
    assert figures.rare is not None
    assert figures.rare.machines == 1
    assert figures.rare.awarded == figures.rare.done == figures.rare.jobs == 2
    assert figures.rare.announcements.mean > 0


def test_the_same_plan_gives_the_same_figures() -> None:
    plan = msgspec.structs.replace(QUICK, rare=0.0)
    one, other = measure(30, plan), measure(30, plan)
    assert (one.trace_hash, one.by_kind) == (other.trace_hash, other.by_kind)
    assert one.rare is None


def test_bounds_hold_while_figures_stay_close() -> None:
    verdict = judge([size(100, 6.0), size(10_000, 7.0)], Plan())
    assert verdict.holds
    assert verdict.messages_off == pytest.approx(0.5 / 6.5)


@pytest.mark.parametrize(
    ("sizes", "broken"),
    [
        ([size(100, 6.0), size(10_000, 9.1)], "flat"),
        ([size(100, 6.0), size(10_000, 6.0, bids=65.0)], "bids"),
        ([size(100, 6.0, done=997), size(10_000, 6.0)], "completed"),
    ],
)
def test_each_bound_can_break(sizes: list[Size], broken: str) -> None:
    verdict = judge(sizes, Plan())
    assert not verdict.holds
    assert [name for name in ("flat", "bids", "completed", "rare") if not getattr(verdict, name)] == [broken]


def test_a_rare_job_that_nobody_took_breaks_a_bound() -> None:
    rare = Rare(machines=1, jobs=2, done=1, awarded=1, rounds=NONE, announcements=NONE, messages=NONE, award_s=NONE)
    assert not judge([msgspec.structs.replace(size(100, 6.0), rare=rare)], Plan()).rare


def test_the_command_prints_a_line_for_each_size_and_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scale", "--peers", "20,40", "--seconds", "10", "--jobs", "0", "--rare", "0"]
    status = main(arguments)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["peers"] for line in lines[:-1]] == [20, 40]
    assert lines[-1]["sizes"] == [20, 40]
    assert status == (0 if lines[-1]["holds"] else 1)


def test_meshes_measured_earlier_are_judged_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = tmp_path / "earlier.json"
    earlier.write_bytes(msgspec.json.encode(size(10_000, 60.0)) + b"\n" + msgspec.json.encode({"holds": True}) + b"\n")
    quick = ["scale", "--peers", "20", "--seconds", "5", "--jobs", "0", "--rare", "0"]
    assert main([*quick, "--with", str(earlier)]) == 1
    verdict = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (verdict["sizes"], verdict["flat"]) == ([10_000, 20], False)
    earlier.write_text("{}\n")
    assert main([*quick, "--with", str(earlier)]) == 2
    assert "no figures" in capsys.readouterr().err


def test_a_mesh_too_small_to_measure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["scale", "--peers", "100,3"])
    assert refused.value.code == 2
    assert "at least 10 peers" in capsys.readouterr().err
