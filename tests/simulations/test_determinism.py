"""Same options, same trace: in one process, in another, under any seed of Python's string hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from msgspec.structs import replace

from simulations.options import draw
from simulations.simulation import simulate


def trace_hash_in_new_process(hash_seed: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "simulations", *arguments, "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return str(json.loads(done.stdout)["trace_hash"])


@pytest.mark.parametrize(
    "arguments",
    [("replay", "3"), ("run", "main-job", "--peers", "30", "--jobs", "1", "--seed", "7")],
    ids=["drawn", "named"],
)
def test_one_seed_gives_one_trace_whatever_the_hash_seed(arguments: tuple[str, ...]) -> None:
    hashes = {trace_hash_in_new_process(hash_seed, *arguments) for hash_seed in ("0", "1", "random")}
    assert len(hashes) == 1


def test_a_second_world_in_one_process_is_the_first_one_again() -> None:
    options = draw(4)
    assert simulate(options)[0].trace_hash == simulate(options)[0].trace_hash


def test_another_seed_gives_another_trace() -> None:
    options = draw(4)
    assert simulate(options)[0].trace_hash != simulate(replace(options, seed=5))[0].trace_hash


def test_the_seed_decides_which_faults_there_are() -> None:
    assert draw(4) == draw(4)
    assert len({draw(seed).faults for seed in range(20)}) == 20


def test_real_signatures_pass_the_same_checks() -> None:
    result, _ = simulate(replace(draw(4), peers=8, jobs=1, real_crypto=True))
    assert result.passed, result.problem
