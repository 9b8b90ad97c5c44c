"""How the shards of a stage share its tasks.

Up to ``TASKS_MAX`` shards are a task each. More share the tasks, neighbours together, so that what is awarded, signed
and recorded grows no further: a hundred thousand tiny shards are 200 awards' worth of work, not a hundred thousand.
Everybody derives the shares from the number of shards alone, which the split's receipt states.
"""

from __future__ import annotations

from protocol.limits import TASKS_MAX
from protocol.wire import Role, Task


def shards_per_task(shards: int) -> int:
    """How many shards each task of a stage has; its last one may have fewer."""
    return max(1, -(-shards // TASKS_MAX))


def task_count(shards: int) -> int:
    """How many tasks the shards of a stage are."""
    return -(-shards // shards_per_task(shards))


def shards_of(index: int, shards: int) -> range:
    """The shards of task ``index``."""
    size = shards_per_task(shards)
    return range(index * size, min((index + 1) * size, shards))


def shards_in(task: Task, shards: int) -> int:
    """How many shards a task stands for; none if it splits or merges."""
    return len(shards_of(task.index, shards)) if task.role is Role.SHARD else 0
