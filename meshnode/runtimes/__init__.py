"""Running one task of a stranger so that it cannot hurt the machine: in a container, or in a sandbox."""

from meshnode.runtimes.base import Ended, Isolation, RunRefused, RunRequest, Runtime, RuntimeFault, RuntimeUnavailable
from meshnode.runtimes.output import OutputFile, OutputRefused, collect_output, remove_tree
from meshnode.runtimes.selection import select_runtime

__all__ = [
    "Ended",
    "Isolation",
    "OutputFile",
    "OutputRefused",
    "RunRefused",
    "RunRequest",
    "Runtime",
    "RuntimeFault",
    "RuntimeUnavailable",
    "collect_output",
    "remove_tree",
    "select_runtime",
]
