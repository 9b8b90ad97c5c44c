"""Events per second of the simulator, for meshes of 20, 200 and 1,000 peers doing the main job.

    python benchmarks/bench_simulator.py [PEERS ...]

Prints one JSON object per mesh. Everything is counted: joining, the job, the faults, the checkers, the last lookups.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simulations.scenarios import main_job
from simulations.simulation import simulate

PEERS = (20, 200, 1_000)


def measure(peers: int) -> dict[str, object]:
    result, _ = simulate(main_job.options(seed=7, peers=peers, jobs=4))
    figures = result.figures
    return {
        "benchmark": "simulator",
        "peers": peers,
        "passed": result.passed,
        "events": figures.events,
        "events_per_s": round(figures.events_per_s),
        "simulated_over_real_time": round(figures.acceleration, 1),
        "messages_per_peer_s": round(figures.messages_per_peer_s, 2),
        "real_s": round(figures.real_s, 2),
    }


if __name__ == "__main__":
    for count in [int(argument) for argument in sys.argv[1:]] or PEERS:
        print(json.dumps(measure(count)), flush=True)
