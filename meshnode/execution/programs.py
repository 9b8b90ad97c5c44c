"""Which program a task runs: the model's own, one that is built in, or a plug-in; and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import meshnode.tasks
from meshnode.execution.faults import MachineFault, TaskFault, with_tail
from meshnode.runtimes.base import Ended, RunRequest
from meshnode.tasks.splitmerge.plugins import installed, is_plugin
from protocol.effects import StartRun
from protocol.show import job_name
from protocol.wire import Role

MEMORY_DEFAULT_BYTES = 1 << 30
"""For a task that does not say, and for split and merge."""
OUTPUT_BYTES_MAX = 256 << 20
"""What a shard may write."""
WHOLE_BYTES_MAX = 8 << 30
"""What a split or a merge may write: all of the input or of the output, not a shard's share of it."""
_BUILT_IN = Path(meshnode.tasks.__file__).parent
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


@dataclass(frozen=True, slots=True)
class Program:
    """What is run: a model's command, or a program of the node's own."""

    command: tuple[str, ...]
    directory: Path
    image: str = ""
    cpu: float = 1.0
    memory_bytes: int = MEMORY_DEFAULT_BYTES
    warm: bool = False
    """Whether it stays loaded and is asked shard by shard."""


def built_in(order: StartRun) -> Program:
    """The node's own program for a split or a merge."""
    memory = max(order.stage.needs.memory_bytes, MEMORY_DEFAULT_BYTES)
    return Program(("python3", f"{order.task.role.value}.py"), _BUILT_IN, memory_bytes=memory)


def request_for(
    order: StartRun, program: Program, *, run_id: str, input_dir: Path, output_dir: Path, env: Mapping[str, str]
) -> RunRequest:
    """What the runtime is asked to do. Raises TaskFault."""
    try:
        return RunRequest(
            run_id=run_id,
            command=program.command,
            model_dir=program.directory,
            input_dir=input_dir,
            output_dir=output_dir,
            env=env,
            image=program.image or None,
            cpu=program.cpu,
            memory_bytes=program.memory_bytes,
            timeout_s=order.stage.timeout_ms / 1000,
            output_bytes_max=OUTPUT_BYTES_MAX if order.task.role is Role.SHARD else WHOLE_BYTES_MAX,
        )
    except ValueError as error:
        raise TaskFault(f"the task cannot be run: {error}") from None


def environment_of(order: StartRun, shard: int) -> dict[str, str]:
    """What a program is told of the task, and of the shard among its own."""
    job, task = job_name(order.job, order.alias), order.task
    return {
        "MESH_JOB_ID": job,
        "MESH_TASK_ID": f"{job}-{task.index:02d}" if task.role is Role.SHARD else f"{job}.{task.role.value}",
        "MESH_STAGE": order.stage.name,
        "MESH_ROLE": task.role.value,
        "MESH_SHARD_INDEX": str(shard),
        "MESH_SHARD_COUNT": str(max(1, order.shards)),
        "MESH_ATTEMPT": str(order.attempt),
    }


def check_end(ended: Ended, order: StartRun, program: Program) -> None:
    """Raise TaskFault unless the command ended well."""
    if ended.cause == "exited" and ended.exit_code == 0:
        return
    match ended.cause:
        case "exited":
            what = f"exit code {ended.exit_code}"
        case "timeout":
            what = f"not done within {order.stage.timeout_ms / 1000:g} s"
        case "out-of-memory":
            what = f"out of memory: it may use {program.memory_bytes >> 20} MiB"
        case "output-too-large":
            what = "its output is too large"
    raise TaskFault(with_tail(what, ended.stderr_tail))
