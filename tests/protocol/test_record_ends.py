"""How a job ends: by its holders' vote, or when its time is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.messages import Accept, AcceptedVote, Decided, Message
from protocol.wire import Needs
from tests.protocol.mesh import signer
from tests.protocol.record_story import HOLDERS, Story

FIVE = (*HOLDERS, "dan", "eve")


# -- cancelling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", FIVE)
def test_a_job_is_cancelled_through_anybody_by_its_holders_decree(asked: str) -> None:
    story = Story(*FIVE)
    story.mesh.run_ms = 60_000
    story.mesh.run_for(0.5)
    assert story.mesh.cancel(asked, story.spec, "submitter").status == "cancelled"
    body = story.wait_for_end(5)
    assert (body.status, body.error) == ("cancelled", "cancelled by its submitter")
    assert set(story.finals()) == set(HOLDERS)
    story.mesh.run_for(2)
    for peer in story.mesh.peers.values():
        assert (peer.snapshot().runs, peer.snapshot().leases) == (0, 0)


@pytest.mark.parametrize("asked", ["bob", "cat", "eve"])
def test_a_cancel_while_the_steward_is_dead_is_decided_by_who_takes_over(asked: str) -> None:
    story = Story(*FIVE)
    story.mesh.run_ms = 60_000
    story.mesh.run_for(0.5)
    story.mesh.kill("ann")
    answer = story.mesh.cancel(asked, story.spec, "submitter")
    assert answer.status in ("cancelled", "requested")
    assert story.wait_for_end(20).status == "cancelled"


@pytest.mark.parametrize("submitter", ["eve", "ann"])
def test_nobody_else_cancels_it_through_whatever_holder(submitter: str) -> None:
    story = Story(*FIVE)
    for name in HOLDERS:
        assert story.mesh.cancel(name, story.spec, submitter).status == "unknown"
    assert story.wait_for_end().status == "success"


def test_a_cancel_that_comes_too_late_says_how_it_ended() -> None:
    story = Story(*FIVE)
    story.wait_for_end()
    for name in FIVE:
        assert story.mesh.cancel(name, story.spec, "submitter").status == "success"


def test_without_a_majority_a_cancel_is_requested_and_comes_true_when_there_is_one() -> None:
    story = Story(*FIVE)
    mesh = story.mesh
    mesh.run_ms = 600_000
    mesh.run_for(0.5)
    mesh.kill("ann")
    mesh.kill("bob")
    mesh.run_for(5)
    assert mesh.cancel("cat", story.spec, "submitter").status == "requested"
    assert story.finals() == {}
    mesh.restart("bob")
    assert story.wait_for_end(20).status == "cancelled"


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0, 1.3, 1.4, 1.45, 1.5, 1.52, 1.54, 1.6])
def test_a_cancel_races_the_end_and_one_of_them_wins_everywhere(moment: float) -> None:
    story = Story(*FIVE)
    story.mesh.run_for(moment)
    said = story.mesh.cancel("cat", story.spec, "submitter").status
    body = story.wait_for_end(20)
    assert body.status == said
    assert set(story.finals()) == set(HOLDERS)


# -- a vote that is cut short -------------------------------------------------------------------------------------

CUT_SHORT: dict[str, Callable[[str, str, Message], bool]] = {
    "nobody is asked": lambda sender, to, message: isinstance(message, Accept),
    "one is asked": lambda sender, to, message: isinstance(message, Accept) and to == signer("bob").peer_id,
    "nobody's answer arrives": lambda sender, to, message: isinstance(message, AcceptedVote),
    "nobody hears of it": lambda sender, to, message: isinstance(message, Decided),
}


@pytest.mark.parametrize("cut", CUT_SHORT.values(), ids=CUT_SHORT)
@pytest.mark.parametrize("returns", [False, True], ids=["gone for good", "comes back"])
def test_a_vote_that_a_dying_steward_left_behind_is_finished(cut: Any, returns: bool) -> None:
    """What may have been decided is what the next one proposes; late messages change nothing."""
    story = Story(*FIVE)
    mesh = story.mesh

    def begun(kind: type[Message]) -> bool:
        return any(isinstance(message, kind) for _, _, message in mesh.sent)

    mesh.withheld = cut
    ann = mesh.ids["ann"]
    story.wait_for(lambda: begun(Accept) or (story.record_at("ann") or story.records()["ann"]).final, 20, step=0.001)
    mesh.run_for(0.01)
    voted = mesh.peers[ann]._keeper.find(story.spec.digest)
    assert voted is not None
    first = voted.body
    assert first is not None
    mesh.kill("ann")
    mesh.withheld = lambda sender, to, message: False
    late, mesh.late = mesh.late, []
    story.wait_for(lambda: {"bob", "cat"} <= set(story.finals()), 20)
    if returns:
        mesh.restart("ann")
    mesh.late = late
    mesh.deliver_late()
    mesh.run_for(10)
    finals = story.finals()
    assert {"bob", "cat"} <= set(finals)
    assert finals["bob"].status == "success"
    assert finals["bob"].output == first.output
    assert ("ann" in finals) == returns


def test_holders_that_change_while_the_job_ends() -> None:
    """The end waits for the other holders, or the other way round; never both in one register."""
    story = Story(*FIVE)
    mesh = story.mesh
    mesh.run_ms = 11_000
    mesh.run_for(0.5)
    mesh.kill("cat")
    body = story.wait_for_end(200)
    assert body.status == "success"
    chains = {tuple(record.chain.certificates) for name, record in story.records().items() if name in story.holders()}
    assert len(chains) == 1


# -- time is over ---------------------------------------------------------------------------------------------------


def test_what_can_never_be_decided_is_forgotten_when_its_time_is_over() -> None:
    """Two of three holders are gone for good: the third looks after the job as long as the spec is good, no longer."""
    story = Story(*HOLDERS, needs=Needs(memory_bytes=64 << 30))
    mesh = story.mesh
    mesh.run_for(1)
    mesh.kill("bob")
    mesh.kill("cat")
    mesh.run_for(30)
    assert story.stewards() == ["ann"]
    mesh.run_for(3_900)
    assert story.records() == {}
    assert story.stewards() == []
    tables = mesh.peers[mesh.ids["ann"]].snapshot().tables
    assert (tables["records"], tables["jobs"]) == (0, 0)
    assert {table for table, _ in mesh.journals[mesh.ids["ann"]]} <= {
        "incarnation",
        "pointer",
        "placement",
        "tombstone",
    }
