"""Named worlds. A scenario is a function from seed, peers and jobs to options."""

from __future__ import annotations

from collections.abc import Callable

from simulations.options import Options
from simulations.scenarios import main_job, uneven

SCENARIOS: dict[str, Callable[[int, int, int], Options]] = {"main-job": main_job.options, "uneven": uneven.options}
