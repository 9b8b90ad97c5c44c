"""``python -m meshnode`` is ``infra``."""

from meshnode.cli import main

main()
