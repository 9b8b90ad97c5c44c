"""The record of a job: it outlives the loss of any one party, at any moment. ``docs/specs/record.md``."""

from __future__ import annotations

import pytest

from protocol import events
from protocol.wire import Role
from tests.protocol.record_story import Story

FIVE = ("ann", "bob", "cat", "dan", "eve")
MOMENTS_S = [0.0, 0.05, 0.25, 0.3, 0.35, 0.6, 0.65, 0.9, 1.0, 1.2, 1.3, 1.5, 1.55, 2.0]
"""From the instant of "accepted" until the job is over, which takes about 1.5 s."""
LATE = [0.3, 0.65, 1.0, 1.3]


# -- one loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["ann", "bob", "cat", "dan"])
@pytest.mark.parametrize("moment", MOMENTS_S)
def test_a_job_survives_the_loss_of_any_one_party_at_any_moment(moment: float, lost: str) -> None:
    """Of the steward, of either witness, of a worker: it ends the same everywhere, and repeats nothing finished."""
    story = Story(*FIVE)
    story.mesh.run_for(moment)
    story.mesh.kill(lost)
    if lost == "ann" and not story.finals():
        assert story.wait_for(lambda: story.stewards() or story.finals(), 5) <= 5
    body = story.wait_for_end(20)
    assert (body.status, body.succeeded, body.failed, body.total_shards) == ("success", 12, 0, 12)
    assert story.repeated(lost) == []
    for name in set(FIVE) - {lost}:
        view = story.status(name).view
        assert view is not None
        assert (view.status, view.output) == ("success", body.output)


@pytest.mark.parametrize("moment", LATE)
def test_a_takeover_takes_seconds_also_when_nobody_hears_of_the_death(moment: float) -> None:
    """A machine that stands still breaks no connection."""
    story = Story(*FIVE)
    story.mesh.run_for(moment)
    story.mesh.stop("ann")
    witnesses = ("bob", "cat")
    assert story.wait_for(lambda: set(story.stewards()) & set(witnesses) or "bob" in story.finals(), 5) <= 5
    story.mesh.run_for(40)
    assert story.finals().keys() >= {"bob", "cat"}
    story.mesh.resume("ann")
    story.mesh.run_for(5)
    assert story.finals()["ann"] == story.finals()["bob"], "who wakes up late learns how it ended"
    assert story.stewards() == []


@pytest.mark.parametrize("moment", [0.3, 4.0, 7.0, 10.0])
def test_one_steward_remains_when_the_old_one_comes_back(moment: float) -> None:
    """Not at a moment at which the old one finds receipts waiting: it awards what they make ready, for nothing."""
    story = Story(*FIVE)
    story.mesh.run_ms = 3_000
    story.mesh.run_for(moment)
    story.mesh.stop("ann")
    story.wait_for(lambda: {"bob", "cat"} & set(story.stewards()), 5)
    story.mesh.run_for(0.5)
    story.mesh.resume("ann")
    story.mesh.run_for(3)
    assert len(story.stewards()) == 1
    body = story.wait_for_end(60)
    assert (body.status, body.succeeded) == ("success", 12)
    assert story.repeated("ann") == []


@pytest.mark.parametrize("moment", MOMENTS_S)
def test_after_a_power_cut_the_job_goes_on_where_it_was(moment: float) -> None:
    story = Story(*FIVE)
    story.mesh.run_for(moment)
    story.mesh.restart_all()
    body = story.wait_for_end(60)
    assert (body.status, body.succeeded) == ("success", 12)
    assert story.repeated() == []


@pytest.mark.parametrize("moment", LATE)
def test_restarted_one_after_the_other_the_peers_lose_nothing(moment: float) -> None:
    story = Story(*FIVE)
    story.mesh.run_for(moment)
    for name in FIVE:
        story.mesh.restart(name)
        story.mesh.run_for(1)
    body = story.wait_for_end(60)
    assert (body.status, body.succeeded) == ("success", 12)
    assert story.repeated() == []


# -- a steward that hears nothing, a witness that hears nothing ---------------------------------------------------


@pytest.mark.parametrize("moment", LATE)
def test_a_deaf_steward_is_succeeded(moment: float) -> None:
    """What it says arrives, what it is told does not: it falls silent by itself, so that another can go on."""
    story = Story(*FIVE)
    story.mesh.run_ms = 2_000
    story.mesh.run_for(moment)
    story.mesh.cut(*[(name, "ann") for name in FIVE if name != "ann"])
    story.wait_for(lambda: {"bob", "cat"} & set(story.stewards()), 10)
    story.wait_for(lambda: {"bob", "cat"} <= set(story.finals()), 60)
    story.mesh.heal()
    story.wait_for_end(30)


def test_a_witness_that_is_cut_off_does_not_depose_a_healthy_steward() -> None:
    story = Story(*FIVE)
    story.mesh.run_ms = 6_000
    story.mesh.run_for(0.3)
    story.mesh.isolate("bob")
    for _ in range(10):
        story.mesh.run_for(1)
        assert "ann" in story.stewards()
    story.mesh.heal()
    for _ in range(10):
        story.mesh.run_for(1)
        assert "ann" in story.stewards()
    story.mesh.run_for(10)
    assert story.stewards() in (["ann"], [])
    body = story.wait_for_end(60)
    assert body.status == "success"
    assert story.repeated("bob") == []


def test_a_witness_that_only_does_not_hear_the_steward_does_not_depose_it() -> None:
    """Others hear it, and say so; refusing is always safe."""
    story = Story(*FIVE)
    story.mesh.run_ms = 4_000
    story.mesh.run_for(0.3)
    story.mesh.cut(("ann", "bob"))
    for _ in range(10):
        story.mesh.run_for(1)
        assert story.stewards() == ["ann"]
    assert story.wait_for_end(40).status == "success"


@pytest.mark.parametrize("moment", LATE)
def test_a_partition_with_the_steward_alone_ends_in_one_result(moment: float) -> None:
    """Both sides work; one side has the majority, and the other believes its proof when the cut heals."""
    story = Story(*FIVE)
    story.mesh.run_for(moment)
    story.mesh.isolate("ann")
    story.wait_for(lambda: {"bob", "cat"} <= set(story.finals()), 30)
    assert "ann" not in story.finals()
    assert story.outcome("ann") == "running"
    story.mesh.heal()
    story.wait_for(lambda: "ann" in story.finals(), 15)
    assert story.stewards() == []


# -- handing in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", FIVE)
def test_the_same_bytes_are_the_same_job_before_and_after_a_takeover(asked: str) -> None:
    story = Story(*FIVE)
    story.mesh.run_for(0.35)
    assert story.mesh.submit(asked, story.spec).accepted
    story.mesh.kill("ann")
    if asked != "ann":
        answer = story.mesh.submit(asked, story.spec, seconds=30)
        assert (answer.accepted, answer.copies) == (True, 2)
    story.wait_for_end(20)
    for name in FIVE[1:]:
        assert story.mesh.submit(name, story.spec, seconds=30).accepted
    assert story.repeated("ann") == []
    assert len([run for _, run in story.mesh.runs if run.task.role is Role.SPLIT]) == 1


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.004, 0.006, 0.01, 0.02])
def test_a_job_whose_steward_dies_before_it_said_accepted_is_taken_in_by_another_holder(moment: float) -> None:
    story = Story(*FIVE, accepted=False)
    mesh, dan = story.mesh, story.mesh.ids["dan"]
    mesh.give(dan, events.JobSubmitted(99, story.spec.signed, (dan,)))
    mesh.run_for(moment)
    mesh.kill("ann")
    story.wait_for(lambda: 99 in mesh.replies, 60)
    assert mesh.replies[99].accepted
    body = story.wait_for_end(30)
    assert (body.status, body.succeeded) == ("success", 12)
    assert {"bob", "cat"} <= set(story.finals())
