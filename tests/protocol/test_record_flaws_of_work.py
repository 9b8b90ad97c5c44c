"""How simpler designs of the record fail, continued: work, copies, clocks, what is shown. See ``test_record_flaws``."""

from __future__ import annotations

import pytest

from protocol.clock import WallMs
from protocol.decrees import Final, digest_of
from protocol.effects import StartRun
from protocol.ending import flaw_of
from protocol.events import ClockObserved
from protocol.messages import CopyRequest, Decided, Leads, Offer, Receipts, ReceiptsAck, Returned, WhoLeads
from protocol.wire import Ballot, Needs, Role, Task
from tests.protocol.lone import Lone, finished, of_kind, one_of_kind, only, peer, sent
from tests.protocol.mesh import Mesh
from tests.protocol.record_story import HOLDERS, MERGE, Story
from tests.protocol.samples import body, certificate, spec, split_award

FIVE = (*HOLDERS, "dan", "eve")
DAY_MS = 86_400_000


# -- high ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["bob", "cat", "dan", "eve"])
@pytest.mark.parametrize("moment", [0.35, 0.65, 1.0, 1.25, 1.35])
def test_f05_outputs_that_differ_from_run_to_run_never_mix(moment: float, lost: str) -> None:
    """A worker is lost before there are copies: what it had made is made again, differently, and so is what read it."""
    story = Story(*FIVE)
    mesh = story.mesh
    mesh.withhold_copies = True
    mesh.salt_of = lambda run: run.to_bytes(4, "big")
    mesh.run_for(moment)
    mesh.kill(lost)
    mesh.withhold_copies = False
    body = story.wait_for_end(120)
    assert (body.status, body.succeeded) == ("success", 12)
    record = next(record for record in story.records().values() if record.complete and record.final)
    assert flaw_of(body, record.spec, record.facts) is None
    receipts = {entry.task: record.facts.receipts[entry.receipt] for entry in body.entries if entry.receipt}
    split = receipts[Task(role=Role.SPLIT)].record.output
    for task, receipt in receipts.items():
        award = record.facts.awards[receipt.record.award].record
        if task.role is Role.SHARD:
            assert award.split == split
        if task.role is Role.MERGE:
            read = {part.index: part.output for part in award.parts}
            assert read == {one.index: receipts[one].record.output for one in receipts if one.role is Role.SHARD}
    assert body.output == receipts[MERGE].record.output


@pytest.mark.parametrize("wrong", HOLDERS)
def test_f06_one_wrong_clock_fails_no_job(wrong: str) -> None:
    """Half an hour ahead it is past the deadline, by the clock of one."""
    story = Story(*FIVE)
    mesh = story.mesh
    mesh.run_ms = 4_000
    mesh.run_for(0.35)
    mesh.give(mesh.ids[wrong], ClockObserved(WallMs(mesh.wall + 1_800_000)))
    body = story.wait_for_end(300)
    assert (body.status, body.succeeded) == ("success", 12)
    assert body.completed_at > 0


@pytest.mark.parametrize("wrong", HOLDERS)
def test_f06_one_wrong_clock_keeps_no_job_from_failing(wrong: str) -> None:
    story = Story(*FIVE, fields={"deadline_ms": 20_000}, needs=Needs(memory_bytes=64 << 30))
    mesh = story.mesh
    mesh.run_for(1)
    mesh.give(mesh.ids[wrong], ClockObserved(WallMs(mesh.wall - DAY_MS)))
    mesh.run_for(15)
    assert story.finals() == {}
    body = story.wait_for_end(20)
    assert (body.status, body.error) == ("failed", "the job's deadline of 20 s has passed with nothing done")


def test_f06_without_a_majority_there_is_no_deadline() -> None:
    story = Story(*HOLDERS, fields={"deadline_ms": 20_000}, needs=Needs(memory_bytes=64 << 30))
    mesh = story.mesh
    mesh.run_for(1)
    mesh.kill("bob")
    mesh.kill("cat")
    mesh.run_for(60)
    assert story.finals() == {}
    mesh.restart("bob")
    assert story.wait_for_end(20).status == "failed"


def test_f08_a_lost_copy_of_the_files_is_replaced_while_the_job_runs() -> None:
    story = Story(*FIVE)
    mesh = story.mesh
    mesh.run_ms = 200_000
    mesh.run_for(0.5)
    record = story.records()["ann"]
    assert len(record.facts.held) == 2
    (other,) = [mesh.name_of(one) for one in record.facts.held if one != mesh.ids["ann"]]
    mesh.kill(other)
    story.wait_for(lambda: len([one for one in record.facts.held if one in mesh.peers]) >= 2, 60, step=1)


def test_f08_of_an_ended_job_two_holders_keep_the_output() -> None:
    story = Story(*FIVE)
    mesh = story.mesh
    story.wait_for_end()
    mesh.run_for(40)
    keeping = [name for name in FIVE if mesh.peers[mesh.ids[name]]._upkeep.has_output(story.spec.digest)]
    assert keeping == ["ann", "bob"]
    mesh.kill("ann")
    mesh.run_for(60)
    keeping = [name for name in FIVE[1:] if mesh.peers[mesh.ids[name]]._upkeep.has_output(story.spec.digest)]
    assert keeping == ["bob", "cat"]


JOB = spec()
AWARD = split_award(JOB, worker="dan")


def test_f09_a_worker_keeps_its_receipts_until_it_sees_the_certificate() -> None:
    """Acknowledged by a steward that died before anybody else had it, a receipt is given to the next one as well."""
    dan = Lone("dan")
    (run,) = of_kind(dan.receive("ann", Offer(award=AWARD.signed, spec=JOB.signed, sources=())), StartRun)
    receipts = only(dan.give(finished(run)), Receipts).receipts
    dan.receive("ann", ReceiptsAck(receipts=tuple(one.digest for one in receipts)))
    assert sent(dan.wait(3_000), Receipts) == []
    emitted = dan.receive("cat", Leads(job=JOB.digest, ballot=Ballot(epoch=1, peer=peer("cat"))))
    assert sent(emitted, Receipts) == [
        (peer("cat"), Receipts(job=JOB.digest, receipts=receipts, awards=(AWARD.signed,)))
    ]
    dan.receive("cat", ReceiptsAck(receipts=tuple(one.digest for one in receipts)))
    assert dan.peer.snapshot().tables["receipts"] == 1
    end = body(JOB, status="cancelled", entries=(), output=None)
    proof = certificate(JOB, Final(body=digest_of(end)), by=("ann", "bob"))
    dan.receive("eve", Decided(job=JOB.digest, chain=(proof,), body=end))
    assert dan.peer.snapshot().tables["receipts"] == 0


def test_f09_a_worker_that_is_told_of_no_steward_asks_the_other_holders_at_once() -> None:
    """Also one that is itself what it took for the steward: what it has signed would be delivered to nobody."""
    dan = Lone("dan")
    dan.receive("ann", Offer(award=AWARD.signed, spec=JOB.signed, sources=()))
    asked = sent(dan.wait(8_000), WhoLeads)
    assert [to for to, _ in asked[:1]] == [peer("ann")]
    dan.receive("ann", Leads(job=JOB.digest, ballot=Ballot(peer=peer("ann"))))
    assert sent(dan.wait(2_500), WhoLeads) == [], "it has been heard of"
    dan.receive("ann", Leads(job=JOB.digest))
    asked = sent(dan.wait(2_500), WhoLeads)
    assert {peer("bob"), peer("cat")} & {to for to, _ in asked}


def test_f09_what_only_the_dead_steward_had_been_told_is_not_made_again() -> None:
    """It acknowledges, and its other holders hear nothing of it."""
    story = Story(*FIVE)
    mesh = story.mesh
    mesh.cut(("ann", "bob"), ("ann", "cat"))
    mesh.run_for(1.0)
    mesh.kill("ann")
    body = story.wait_for_end(30)
    assert (body.status, body.succeeded) == ("success", 12)
    assert story.repeated("ann") == []


def test_f11_workers_that_leave_fail_no_task() -> None:
    """Four attempts are four failures of the task itself; that workers come and go says nothing about it."""
    names = [f"worker-{number}" for number in range(6)]
    mesh = Mesh(*HOLDERS, *names)
    mesh.run_for(5)
    mesh.held_runs.update(mesh.ids.values())
    job = mesh.spec("ann", holders=HOLDERS, attempts=4)
    assert mesh.submit("ann", job).accepted
    lost = 0
    while lost < 5:
        for _ in range(200):
            running = [mesh.name_of(who) for who, run in mesh.runs if who in mesh.peers]
            if running:
                break
            mesh.run_for(0.1)
        mesh.runs.clear()
        name = running[-1]
        if name in HOLDERS:
            mesh.restart(name)
        else:
            mesh.kill(name)
        lost += 1
    mesh.held_runs.clear()
    mesh.run_for(40)
    assert mesh.status("ann", job).view.status == "success"


def test_f12_what_was_accepted_is_found_though_the_steward_dies_at_once() -> None:
    story = Story(*FIVE, accepted=False)
    mesh = story.mesh
    job = mesh.spec("ann", alias="stars", holders=HOLDERS)
    answer = mesh.submit("ann", job)
    assert answer.accepted
    assert answer.pointers >= 3, "two that are not the steward's own"
    mesh.kill("ann")
    short = job.digest.hex()[:4] + "-" + job.digest.hex()[4:8]
    for name in FIVE[1:]:
        for text in (short, job.digest.hex(), "stars"):
            assert mesh.find(name, "job", text), (name, text)
    mesh.run_for(20)
    assert mesh.status("eve", job).view.status == "success"


# -- medium -------------------------------------------------------------------------------------------------------


def test_f17_a_provisional_result_is_never_shown_as_the_status() -> None:
    story = Story(*HOLDERS)
    mesh = story.mesh
    seen = set()
    mesh.run_for(0.65)
    mesh.isolate("ann")
    for _ in range(60):
        mesh.run_for(0.5)
        view = story.status("ann").view
        assert view is not None
        assert view.output is None
        seen.add((view.status, view.provisional))
    assert seen == {("running", ""), ("running", "success")}
    mesh.heal()
    mesh.run_for(10)
    view = story.status("ann").view
    assert view is not None
    assert (view.status, view.provisional) == ("success", "")


def test_f18_a_job_ends_with_one_copy_of_its_output_when_no_second_can_be_had() -> None:
    story = Story(*HOLDERS, profiles={name: {"slots": 8 if name == "ann" else 1} for name in HOLDERS})
    mesh = story.mesh
    mesh.withheld = lambda sender, to, message: isinstance(message, CopyRequest)
    body = story.wait_for_end(60)
    assert body.status == "success"
    assert len(body.keepers) >= 1
    assert story.outcome("bob") == "success"


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_f18_a_mesh_of_one_ends_its_jobs(moment: float) -> None:
    story = Story("ann")
    body = story.wait_for_end(60)
    assert (body.status, len(body.keepers)) == ("success", 1)


def test_f19_a_restart_voids_every_lease_whatever_the_monotonic_clock_says() -> None:
    """After a reboot it begins anew; what the journal holds has wall-clock times, and nobody's container."""
    dan = Lone("dan")
    dan.wait(3_600_000)
    job = spec(issued_at=dan.wall, not_after=dan.wall + DAY_MS)
    given = split_award(job, worker="dan", issued_at=dan.wall, not_after=dan.wall + 60_000)
    one_of_kind(dan.receive("ann", Offer(award=given.signed, spec=job.signed, sources=())), StartRun)
    again = Lone("dan", journal=dan.journal)
    again.give(ClockObserved(WallMs(dan.wall + 5_000)))
    assert again.now < dan.now
    emitted = again.wait(3_000)
    assert of_kind(emitted, StartRun) == []
    assert again.peer.snapshot().leases == 0
    assert (peer("ann"), Returned(award=given.digest, reason="the node was restarted")) in sent(emitted, Returned)


def test_f22_an_incarnation_from_a_clock_a_day_ahead_is_moved_past() -> None:
    """Ann once counted from a clock; her disk and her counter are lost, and the others know the high number."""
    mesh = Mesh(*HOLDERS)
    mesh.kill("ann")
    mesh.add("ann", incarnation=1 << 40)
    mesh.run_for(5)
    mesh.kill("ann")
    mesh.journals[mesh.ids["ann"]].clear()
    mesh.add("ann", incarnation=1)
    mesh.run_for(10)
    ann = mesh.peers[mesh.ids["ann"]].snapshot()
    assert ann.incarnation == (1 << 40) + 1
    for name in ("bob", "cat"):
        known = {record.peer: record for record in mesh.peers[mesh.ids[name]].snapshot().known}
        assert known[mesh.ids["ann"]].incarnation == ann.incarnation
