"""The main job told as stories of a few peers: split, run, merge, and what happens when something goes wrong."""

from __future__ import annotations

from protocol import events
from protocol.messages import StatusReply
from protocol.records import Receipt
from protocol.wire import Needs, Role, Task
from tests.protocol.mesh import Mesh, output_of, signer


def mesh_of_four() -> Mesh:
    mesh = Mesh("ann", "bob", "cat", "dan")
    mesh.run_for(3)
    return mesh


def test_a_job_is_split_run_and_merged() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", alias="stars")
    answer = mesh.submit("ann", spec)
    assert answer.accepted
    assert answer.copies == 2
    assert answer.pointers >= 3
    assert answer.notes == ()
    mesh.run_for(3)
    reply = mesh.status("dan", spec, page=0)
    assert isinstance(reply, StatusReply)
    view = reply.view
    assert view is not None
    assert (view.status, view.merge_status) == ("success", "success")
    assert (view.total_shards, view.succeeded, view.failed) == (4, 4, 0)
    assert view.output == output_of(Task(role=Role.MERGE))
    assert [task.status for task in reply.tasks] == ["success"] * 6
    assert len({run.task for _, run in mesh.runs}) == len(mesh.runs) == 6, "every task ran once"
