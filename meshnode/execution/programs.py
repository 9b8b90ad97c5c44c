"""Which program a task runs: the model's own, one that is built in, or a plug-in on this machine."""

from __future__ import annotations

from meshnode.execution.faults import MachineFault
from meshnode.tasks.splitmerge.plugins import installed, is_plugin
from protocol.effects import StartRun
from protocol.wire import Role

OWN = "container"
"""The split mode, and the merge strategy, of a model that does it itself."""
_WITHOUT_FILES = ("none", "concat-json", "vote", "best")
"""The merges that hand on the links in outputs, and need nothing of what these refer to."""


def runs_model(order: StartRun) -> bool:
    """Whether the task is one for the model's command; MESH_ROLE then tells it which."""
    match order.task.role:
        case Role.SPLIT:
            return order.stage.split == OWN
        case Role.MERGE:
            return order.stage.merge == OWN
        case _:
            return True


def reads_files_of_outputs(order: StartRun) -> bool:
    """Whether the task is a merge that reads the files to which the outputs link."""
    return order.task.role is Role.MERGE and order.stage.merge not in _WITHOUT_FILES


def require_plugin(order: StartRun) -> None:
    """Raise MachineFault if the task needs a plug-in that is not installed here: another node may have it."""
    kind, name = {
        Role.SPLIT: ("splits", order.stage.split),
        Role.MERGE: ("merges", order.stage.merge),
        Role.SHARD: ("", ""),
    }[order.task.role]
    if is_plugin(name) and (kind, name) not in installed():
        raise MachineFault(f"this node has no plug-in {name!r} for {kind} (entry point group meshnode.{kind})")
