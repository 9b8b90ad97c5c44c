"""Merge the outputs of one job's shards: ``python3 merge.py`` in the container contract."""

from splitmerge.contract import run_program  # type: ignore[import-not-found]  # beside this script
from splitmerge.merge import merge  # type: ignore[import-not-found]

if __name__ == "__main__":
    run_program(merge)
