"""How fast the simulator is, in processor time: small drawn worlds, as CI runs them, and the main job in larger meshes.

    python benchmarks/bench_simulator.py [PEERS ...]

Prints one JSON object for the drawn worlds and one per mesh. Everything is counted: joining, jobs, faults, all rules,
the last lookups. ``of_bare_agenda`` compares with an agenda that does nothing, in the same run: that share depends on
the simulator, and hardly on the machine.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simulations.agenda import Agenda
from simulations.options import draw
from simulations.report import Figures
from simulations.scenarios import main_job
from simulations.simulation import simulate

SEEDS = range(1, 31)
PEERS = (20, 200, 1_000)
_BARE_EVENTS = 500_000
_BARE_PENDING = 100


def bare_events_per_s() -> float:
    """Events per second of an agenda whose actions only plan the next."""
    agenda = Agenda()

    def again(delay: int) -> None:
        agenda.after(delay, again, delay)

    for number in range(_BARE_PENDING):
        agenda.after(number, again, _BARE_PENDING)
    began = time.process_time()
    agenda.run_until(_BARE_EVENTS)
    return _BARE_EVENTS / (time.process_time() - began)


def measure_seeds(bare: float) -> dict[str, object]:
    """Drawn worlds of 10 to 30 peers."""
    results = [simulate(draw(seed))[0] for seed in SEEDS]
    figures = [result.figures for result in results]
    cpu_s, events = sum(one.cpu_s for one in figures), sum(one.events for one in figures)
    return {
        "benchmark": "simulator-seeds",
        "seeds": len(results),
        "passed": sum(result.passed for result in results),
        "events": events,
        "events_per_s": round(events / cpu_s),
        "of_bare_agenda": round(events / cpu_s / bare, 4),
        "simulated_over_cpu_time": round(sum(one.simulated_s for one in figures) / cpu_s, 1),
        "cpu_s": round(cpu_s, 2),
    }


def measure(peers: int, bare: float) -> dict[str, object]:
    """The main job."""
    result, _ = simulate(main_job.options(seed=7, peers=peers, jobs=4))
    figures: Figures = result.figures
    return {
        "benchmark": "simulator",
        "peers": peers,
        "passed": result.passed,
        "events": figures.events,
        "events_per_s": round(figures.events_per_s),
        "of_bare_agenda": round(figures.events_per_s / bare, 4),
        "simulated_over_cpu_time": round(figures.acceleration, 1),
        "messages_per_peer_s": round(figures.messages_per_peer_s, 2),
        "cpu_s": round(figures.cpu_s, 2),
    }


if __name__ == "__main__":
    bare = bare_events_per_s()
    counts = [int(argument) for argument in sys.argv[1:]]
    if not counts:
        print(json.dumps(measure_seeds(bare)), flush=True)
    for count in counts or PEERS:
        print(json.dumps(measure(count, bare)), flush=True)
