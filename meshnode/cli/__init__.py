"""The command line, ``infra``.

Commands are imported when they are used, and inside them what they need, so that ``infra --help`` answers at once.
"""

from __future__ import annotations

import sys

from meshnode.cli.group import run


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
