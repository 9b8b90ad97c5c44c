"""For all tests: property tests have no deadline, because the machines they run on are noisy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("mesh", deadline=None)
settings.load_profile("mesh")
