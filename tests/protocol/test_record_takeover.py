"""What a steward takes over from others, and takes in although they no longer lead."""

from __future__ import annotations

from protocol.events import BlobsFetched, MessageReceived
from protocol.facts import Copied
from protocol.job import Job
from protocol.messages import CopyRequest, Renew, Renewal
from protocol.plan import TaskState
from protocol.wire import Ballot
from tests.protocol.record_story import Story


def job_at(story: Story, name: str) -> Job:
    job = story.mesh.peers[story.mesh.ids[name]]._steward.find(story.spec.digest)
    assert job is not None
    return job


def taken_over() -> tuple[Story, str, TaskState]:
    """ann is gone, another holder leads, and nobody gets on; who leads, and a task that was done, without copies."""
    story = Story("ann", "bob", "cat")
    mesh = story.mesh
    mesh.withhold_copies = True
    story.wait_for(lambda: any(state.pin for state in job_at(story, "ann").plan.tasks()), 5, step=0.01)
    mesh.held_runs.update(mesh.peers)
    mesh.kill("ann")
    story.wait_for(story.stewards, 6)
    (steward,) = story.stewards()
    return story, steward, next(state for state in job_at(story, steward).plan.tasks() if state.pin is not None)


def test_a_copy_that_was_asked_for_by_the_steward_before_counts_once_its_keeper_leads() -> None:
    story, steward, state = taken_over()
    mesh, me = story.mesh, story.mesh.ids[steward]
    assert state.pin is not None
    assert state.output is not None
    state.keepers.pop(me, None)
    request = CopyRequest(job=story.spec.digest, receipt=state.pin.digest, output=state.output)
    mesh.peers[me]._holding._copying[1 << 40] = (mesh.ids["ann"], request)
    mesh.give(me, BlobsFetched(1 << 40))
    assert me in state.keepers


def test_what_a_deposed_steward_tells_counts_and_is_passed_on() -> None:
    story, steward, state = taken_over()
    mesh, me, ann = story.mesh, story.mesh.ids[steward], story.mesh.ids["ann"]
    assert state.pin is not None
    assert ann not in state.keepers
    fact = Copied(receipt=state.pin.digest, peer=ann)
    renewal = Renewal(job=story.spec.digest, ballot=Ballot(peer=ann), progress=1, facts=(fact,))
    mesh.give(me, MessageReceived(ann, Renew(renewals=(renewal,))))
    assert ann in state.keepers

    def told() -> list[Renewal]:
        messages = [message for sender, _, message in mesh.sent if sender == me and isinstance(message, Renew)]
        return [one for message in messages for one in message.renewals if fact in one.facts]

    story.wait_for(told, 5)


def test_a_job_that_has_ended_is_not_taken_up_again() -> None:
    """As when it is handed in again to a steward that was away while the others brought it to its end."""
    story = Story("ann", "bob", "cat")
    peer = story.mesh.peers[story.mesh.ids["ann"]]
    lead = peer._leadership.find(story.spec.digest)
    assert lead is not None
    story.wait_for_end()
    assert peer._steward.find(story.spec.digest) is None
    peer._steward.take_up(lead)
    assert peer._steward.find(story.spec.digest) is None
