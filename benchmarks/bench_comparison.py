"""The same work on this mesh, on Ray and on Dask, one after the other on this machine.

    python benchmarks/bench_comparison.py [--write]

Prints one JSON object per system and one with the ratios: above 1 the mesh is faster or needs less. Ray and Dask live
in an environment of their own, which `make bench` sets up. ``--write`` also puts the figures into docs/performance.md.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORKLOADS = ROOT / "benchmarks" / "comparison"
OTHERS = ROOT / ".build" / "comparison" / "bin" / "python"
REPORT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures of bench_comparison -->\n", "<!-- end of figures -->"

ROWS = {
    "noop_shards_per_s": ("no-op shards per second, 10,000 at once", True),
    "shards16_s": ("16 shards of 0.2 s (ideal 0.8 s), s", False),
    "one_shard_s": ("one shard, submit to result, s", False),
    "cpu_ms_per_shard": ("processor time of all processes per no-op shard, ms", False),
}
"""What each figure is, and whether more is better."""


def run(system: str) -> dict[str, Any]:
    python = sys.executable if system == "mesh" else str(OTHERS)
    script = WORKLOADS / f"{system}_workload.py"
    done = subprocess.run([python, str(script)], capture_output=True, text=True, cwd=WORKLOADS, check=False)
    if done.returncode:
        sys.exit(f"error: {script.name} ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(found), flush=True)
    return found


def ratios(mesh: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """How many times better the mesh is, by figure."""
    better = {
        name: mesh[name] / other[name] if more_is_better else other[name] / mesh[name]
        for name, (_, more_is_better) in ROWS.items()
    }
    return {name: float(f"{value:.3g}") for name, value in better.items()}


def table(mesh: dict[str, Any], others: list[dict[str, Any]], found: dict[str, dict[str, float]]) -> str:
    heads = ["", "mesh", *(f"{one['system']} {one['version']}" for one in others)]
    heads += [f"mesh / {one['system']}" for one in others]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, (what, _) in ROWS.items():
        cells = [what, f"{mesh[name]:g}", *(f"{one[name]:g}" for one in others)]
        cells += [f"{found[one['system']][name]:g} ×" for one in others]
        lines.append("| " + " | ".join(cells) + " |")
    day = datetime.datetime.now(datetime.UTC).date()
    where = f"{day}, {os.cpu_count()} processors, load before {os.getloadavg()[0]:.1f}"
    return f"{where}; in the last columns more than 1 is in the mesh's favour.\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    if not OTHERS.exists():
        sys.exit(f"error: {OTHERS.relative_to(ROOT)} is not there: `make bench` sets up what the mesh is compared with")
    others = [run("ray"), run("dask")]
    mesh = run("mesh")
    found = {one["system"]: ratios(mesh, one) for one in others}
    print(json.dumps({"benchmark": "comparison", "times_better_than": found}), flush=True)
    if "--write" in sys.argv[1:]:
        text = REPORT.read_text()
        before, rest = text.split(BEGIN)
        REPORT.write_text(before + BEGIN + table(mesh, others, found) + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    main()
