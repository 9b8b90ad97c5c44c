"""Bugs planted into the core, to see whether the simulator finds them: a checker that finds none proves nothing.

    python -m tests.simulations.planted --seeds 1000

Each bug is a mutation of the core at run time (``registry.py``), in the file named after what it breaks. A bug counts
as found when the world of a seed fails with it and passes without it.
"""
