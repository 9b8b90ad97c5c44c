"""Split one job's input into shards: ``python3 split.py`` in the container contract."""

from splitmerge.contract import run_program  # type: ignore[import-not-found]  # beside this script
from splitmerge.split import split  # type: ignore[import-not-found]

if __name__ == "__main__":
    run_program(split)
