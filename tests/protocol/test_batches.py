"""More shards than a stage has tasks: neighbours share a task, and all counts are of shards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.batches import shards_in, shards_of, shards_per_task, task_count
from protocol.limits import SHARDS_MAX, TASKS_MAX
from protocol.messages import TaskView
from protocol.records import JobSpec
from protocol.signing import Opened
from protocol.wire import Role, Task
from tests.protocol.mesh import Mesh

MANY = 2 * TASKS_MAX + 1


@given(shards=st.integers(1, SHARDS_MAX))
def test_the_tasks_cover_every_shard_once_and_in_order(shards: int) -> None:
    tasks = task_count(shards)
    assert 1 <= tasks <= TASKS_MAX
    size, spans = shards_per_task(shards), [shards_of(index, shards) for index in range(tasks)]
    assert [span.start for span in spans] == list(range(0, shards, size))
    assert [span.stop for span in spans] == [*range(size, shards, size), shards]
    assert sum(shards_in(Task(index=index), shards) for index in range(tasks)) == shards
    assert not shards_of(tasks, shards)


def test_up_to_as_many_shards_as_tasks_are_a_task_each() -> None:
    assert [task_count(shards) for shards in (1, 16, TASKS_MAX)] == [1, 16, TASKS_MAX]
    assert shards_per_task(TASKS_MAX + 1) == 2
    assert shards_in(Task(role=Role.MERGE), 1000) == shards_in(Task(role=Role.SPLIT), 1000) == 0


def mesh_of_many() -> Mesh:
    mesh = Mesh("ann", "bob", "cat", "dan")
    mesh.shards = MANY
    mesh.run_for(3)
    return mesh


def test_a_job_of_many_shards_runs_as_few_tasks_and_counts_its_shards() -> None:
    mesh = mesh_of_many()
    spec = mesh.spec("ann")
    assert mesh.submit("ann", spec).accepted
    mesh.run_for(20)
    view = mesh.status("dan", spec).view
    assert view is not None
    assert (view.status, view.total_shards, view.succeeded, view.failed) == ("success", MANY, MANY, 0)
    shards = [run.task.index for _, run in mesh.runs if run.task.role is Role.SHARD]
    assert set(shards) == set(range(task_count(MANY)))
    merge = next(run for _, run in mesh.runs if run.task.role is Role.MERGE)
    assert (len(merge.parts), merge.shards) == (task_count(MANY), MANY)
    assert len(tasks_of(mesh, spec)) == task_count(MANY) + 2


def test_a_task_that_fails_for_good_fails_all_its_shards() -> None:
    mesh = mesh_of_many()
    mesh.fail_task[Task(index=0)] = "no stars"
    spec = mesh.spec("ann", attempts=1, allow_failures=shards_per_task(MANY))
    assert mesh.submit("ann", spec).accepted
    mesh.run_for(20)
    view = mesh.status("dan", spec).view
    assert view is not None
    failed = shards_per_task(MANY)
    assert (view.status, view.succeeded, view.failed) == ("success", MANY - failed, failed)


def test_and_the_job_if_those_are_more_than_may_fail() -> None:
    mesh = mesh_of_many()
    mesh.fail_task[Task(index=0)] = "no stars"
    spec = mesh.spec("ann", attempts=1, allow_failures=shards_per_task(MANY) - 1)
    assert mesh.submit("ann", spec).accepted
    mesh.run_for(20)
    view = mesh.status("dan", spec).view
    assert view is not None
    assert view.status == "failed"


def test_a_steward_is_succeeded_in_the_middle_of_them() -> None:
    mesh = mesh_of_many()
    spec = mesh.spec("ann")
    assert mesh.submit("ann", spec).accepted
    mesh.run_for(0.2)
    mesh.kill("ann")
    mesh.run_for(60)
    view = mesh.status("dan", spec).view
    assert view is not None
    assert (view.status, view.total_shards, view.succeeded) == ("success", MANY, MANY)


def tasks_of(mesh: Mesh, spec: Opened[JobSpec]) -> list[TaskView]:
    tasks: list[TaskView] = []
    start = 0
    while True:
        reply = mesh.status("dan", spec, start=start)
        tasks += reply.tasks
        start = reply.next
        if not start:
            return tasks
