"""From a StartRun to its one RunFinished or RunFailed: fetch, lay out, run in the sandbox or a container, collect.

Nothing here decides about the mesh, and nothing blocks the node's loop: disk work happens in threads. What goes wrong
is told apart by whose fault it is. ``TaskFault`` is the task's: it is signed, and counts against the job's attempts.
``MachineFault`` is this machine's, or that of peers who do not deliver: the task is given back.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from meshnode.blobs.errors import BlobError
from meshnode.blobs.store import BlobStore
from meshnode.models import ModelCache
from meshnode.outputs import store_output
from meshnode.runtimes.base import Ended, RunRefused, RunRequest, Runtime, RuntimeFault
from meshnode.runtimes.output import OutputRefused, remove_tree
from meshnode.taskinputs import TaskInput, lay_out, task_input
from meshnode.taskfaults import MachineFault, TaskFault
from protocol.clock import WallMs
from protocol.effects import StartRun
from protocol.events import RunFailed, RunFinished
from protocol.identity import PeerId
from protocol.limits import TEXT_CHARS_MAX
from protocol.wire import Link, Output, Role
