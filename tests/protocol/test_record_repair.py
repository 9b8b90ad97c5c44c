"""What is lost is replaced: holders, copies, disks. And what each size of a mesh promises: ``docs/specs/record.md``."""

from __future__ import annotations

from itertools import permutations

import pytest

from protocol.limits import Limits
from protocol.wire import Role
from tests.protocol.record_story import HOLDERS, Story

FOUR = ("ann", "bob", "cat", "dan")
FIVE = (*FOUR, "eve")
REPAIRED_S = 60
"""A holder is replaced when it was not heard of for 30 s, and one looks every 10 s."""


def repaired(story: Story, *gone: str) -> bool:
    """Whether three peers that are there hold the job, by what its steward knows."""
    here = [name for name in story.holders() if name not in gone]
    return len(here) == 3 and all(story.record_at(name) is not None for name in here)


# -- losses one after the other ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), list(permutations(HOLDERS, 2)))
@pytest.mark.parametrize("names", [FOUR, FIVE], ids=["4 peers", "5 peers"])
def test_a_second_loss_is_survived_once_the_first_is_repaired(names: tuple[str, ...], first: str, second: str) -> None:
    story = Story(*names)
    story.mesh.run_ms = 100_000
    story.mesh.run_for(0.5)
    story.mesh.kill(first)
    story.wait_for(lambda: repaired(story, first), REPAIRED_S, step=1)
    story.mesh.run_for(1)
    story.mesh.run_ms = 300
    story.mesh.kill(second)
    body = story.wait_for_end(90)
    assert (body.status, body.succeeded) == ("success", 12)
    assert len(story.finals()) >= 2


def test_losses_one_after_the_other_down_to_two_peers() -> None:
    story = Story(*FIVE)
    story.mesh.run_ms = 200_000
    story.mesh.run_for(0.5)
    for name in ("ann", "bob"):
        story.mesh.kill(name)
        gone = [one for one in FIVE if story.mesh.ids[one] not in story.mesh.peers]
        story.wait_for(lambda gone=gone: repaired(story, *gone), REPAIRED_S, step=1)
        story.mesh.run_for(1)
    story.mesh.run_ms = 300
    story.mesh.kill("cat")
    body = story.wait_for_end(400)
    assert (body.status, body.succeeded) == ("success", 12)


def test_who_is_away_for_less_than_it_takes_to_restart_stays_a_holder() -> None:
    story = Story(*FIVE)
    story.mesh.run_ms = 30_000
    story.mesh.run_for(0.5)
    story.mesh.kill("cat")
    story.mesh.run_for(20)
    story.mesh.restart("cat")
    story.mesh.run_for(30)
    assert story.holders() == HOLDERS


@pytest.mark.parametrize("lost", HOLDERS)
def test_who_comes_back_after_being_replaced_learns_it_and_does_not_interfere(lost: str) -> None:
    story = Story(*FIVE)
    story.mesh.run_ms = 40_000
    story.mesh.run_for(0.5)
    story.mesh.kill(lost)
    story.wait_for(lambda: repaired(story, lost), REPAIRED_S, step=1)
    holders = story.holders()
    story.mesh.restart(lost)
    story.mesh.run_for(10)
    assert story.holders() == holders
    assert lost not in story.stewards()
    story.mesh.run_ms = 300
    assert story.wait_for_end(300).status == "success"
    assert story.outcome(lost) == "success"


# -- disks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wiped", HOLDERS)
def test_a_holder_that_lost_its_disk_is_another_store_and_is_taken_in_anew(wiped: str) -> None:
    """Here of three peers: nobody else could take its place."""
    story = Story(*HOLDERS)
    mesh = story.mesh
    mesh.run_ms = 30_000
    mesh.run_for(0.5)
    old = story.spec.record.holders[HOLDERS.index(wiped)]
    mesh.wipe(wiped)
    mesh.run_for(2)
    record = story.record_at(wiped)
    assert record is None or record.acceptor is None, "it abstains"

    def has_joined() -> bool:
        record = story.record_at(wiped)
        return record is not None and record.acceptor is not None

    story.wait_for(has_joined, 100, step=1)
    current = story.records()[wiped].chain.current
    assert current.store_of(mesh.ids[wiped]) == mesh.store_of(wiped) != old.store
    mesh.run_ms = 300
    body = story.wait_for_end(300)
    assert (body.status, body.succeeded) == ("success", 12)
    assert set(story.finals()) == set(HOLDERS)


def test_two_disks_lost_one_after_the_other() -> None:
    story = Story(*FIVE)
    story.mesh.run_ms = 200_000
    story.mesh.run_for(0.5)
    for name in ("bob", "ann"):
        before = len(story.records()["cat"].chain.certificates)
        story.mesh.wipe(name)
        story.wait_for(lambda before=before: len(story.records()["cat"].chain.certificates) > before, 100, step=1)
        story.mesh.run_for(5)
    story.mesh.run_ms = 300
    body = story.wait_for_end(400)
    assert (body.status, body.succeeded) == ("success", 12)


# -- without a majority ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", HOLDERS)
def test_with_two_of_three_holders_gone_a_result_is_provisional_and_final_when_one_returns(left: str) -> None:
    story = Story(*FIVE)
    mesh = story.mesh
    mesh.run_for(0.35)
    gone = [name for name in HOLDERS if name != left]
    for name in gone:
        mesh.kill(name)
    mesh.run_for(25)
    view = story.status("eve").view
    assert view is not None
    assert (view.status, view.provisional) == ("running", "success")
    assert view.provisional_output is not None
    assert view.output is None
    assert story.finals() == {}
    mesh.restart(gone[1])
    body = story.wait_for_end(30)
    assert (body.status, body.succeeded, body.output) == ("success", 12, view.provisional_output)
    assert story.repeated(*gone) == []


def test_a_vote_that_nobody_can_be_asked_for_is_no_storm() -> None:
    """A connection that is refused is no reason to ask again at once: that is refused as well."""
    story = Story(*HOLDERS)
    mesh = story.mesh
    story.wait_for(lambda: any(run.task.role is Role.MERGE for _, run in mesh.runs), 10, step=0.01)
    for name in ("bob", "cat"):
        mesh.kill(name)
    for _ in range(400):
        before = len(mesh.sent)
        mesh.run_for(0.01)
        assert len(mesh.sent) < before + 100
    assert story.finals() == {}


# -- sizes of a mesh ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("ann",), ("ann", "bob"), HOLDERS, FOUR, FIVE], ids=lambda names: str(len(names)))
@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_a_mesh_of_any_size_survives_a_power_cut(names: tuple[str, ...], moment: float) -> None:
    story = Story(*names)
    assert len(story.spec.record.holders) == (1 if len(names) < 3 else 3)
    story.mesh.run_for(moment)
    story.mesh.restart_all()
    body = story.wait_for_end(200)
    assert (body.status, body.succeeded) == ("success", 12)


@pytest.mark.parametrize("moment", [0.0, 0.35, 0.65, 1.0])
def test_in_a_mesh_of_two_the_loss_of_the_one_that_does_not_hold_the_job_is_survived(moment: float) -> None:
    story = Story("ann", "bob")
    story.mesh.run_for(moment)
    story.mesh.kill("bob")
    body = story.wait_for_end(200)
    assert (body.status, body.succeeded) == ("success", 12)


@pytest.mark.parametrize("lost", HOLDERS)
@pytest.mark.parametrize("moment", [0.0, 0.35, 0.65, 1.0, 1.5])
def test_a_mesh_of_three_survives_the_loss_of_any_one(lost: str, moment: float) -> None:
    story = Story(*HOLDERS)
    story.mesh.run_for(moment)
    story.mesh.kill(lost)
    body = story.wait_for_end(60)
    assert (body.status, body.succeeded) == ("success", 12)
    assert len(story.finals()) == 2


@pytest.mark.parametrize("cut_off", HOLDERS)
def test_a_mesh_of_three_survives_that_any_one_is_cut_off(cut_off: str) -> None:
    story = Story(*HOLDERS)
    story.mesh.run_for(0.65)
    story.mesh.isolate(cut_off)
    story.wait_for(lambda: len(story.finals()) == 2, 60)
    assert cut_off not in story.finals()
    story.mesh.heal()
    story.wait_for(lambda: len(story.finals()) == 3, 30)


def test_a_job_that_began_with_one_holder_gets_three_when_others_join() -> None:
    story = Story("ann")
    mesh = story.mesh
    mesh.run_ms = 40_000
    mesh.run_for(1)
    for name in ("bob", "cat"):
        mesh.add(name)
    story.wait_for(lambda: len(story.holders()) == 3, 60, step=1)
    mesh.run_for(2)
    mesh.run_ms = 300
    mesh.kill("ann")
    body = story.wait_for_end(120)
    assert (body.status, body.succeeded) == ("success", 12)


def test_a_durable_job_survives_two_losses_at_once() -> None:
    story = Story(*FIVE, holders=FIVE, fields={"durability": 2})
    story.mesh.run_for(0.65)
    for name in ("ann", "bob"):
        story.mesh.kill(name)
    body = story.wait_for_end(60)
    assert (body.status, body.succeeded) == ("success", 12)
    assert len(story.finals()) == 3


# -- forgetting ---------------------------------------------------------------------------------------------------


def test_an_ended_job_is_evicted_by_bytes_and_leaves_a_tombstone() -> None:
    """The oldest one first; the same bytes are then refused, not begun anew."""
    story = Story(*HOLDERS, limits=Limits(finished_bytes_max=40_000))
    mesh, first = story.mesh, story.spec
    story.wait_for_end()
    for _ in range(6):
        assert mesh.submit("ann", mesh.spec("ann", holders=HOLDERS, shard_count=12)).accepted
        mesh.run_for(8)
    tables = mesh.peers[mesh.ids["ann"]].snapshot().tables
    assert tables["ended_bytes"] <= 40_000
    assert tables["records"] + tables["tombstones"] == 7
    assert tables["tombstones"] >= 1
    assert story.records() == {}
    runs = len(mesh.runs)
    refused = mesh.submit("ann", first)
    assert (refused.accepted, refused.reason) == (False, "the job has ended, and its record was forgotten")
    mesh.restart_all()
    mesh.run_for(3)
    assert not mesh.submit("ann", first).accepted
    assert len(mesh.runs) == runs


def test_tombstones_go_when_the_spec_is_no_longer_good() -> None:
    story = Story(*HOLDERS, limits=Limits(jobs_max=1))
    mesh = story.mesh
    story.wait_for_end()
    for _ in range(2):
        mesh.submit("ann", mesh.spec("ann", holders=HOLDERS))
        mesh.run_for(8)
    assert mesh.peers[mesh.ids["ann"]].snapshot().tables["tombstones"] == 2
    mesh.run_for(7_600)
    for peer in mesh.peers.values():
        tables = peer.snapshot().tables
        assert (tables["tombstones"], tables["records"], tables["ended_bytes"]) == (0, 0, 0)
    refused = mesh.submit("ann", story.spec)
    assert refused.reason == "the job has expired"
