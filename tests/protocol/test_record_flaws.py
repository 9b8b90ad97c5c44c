"""How simpler designs of the record fail: each flaw by its number in the notes that led to this one.

Here those of what is decided and by whom (F1 to F4, F7, F10, F13 to F16, F20); those of work, copies and clocks are in
``test_record_flaws_of_work``. F21 is about gangs, which do not exist yet.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from protocol.decrees import Entry, Final, FinalBody, Next, digest_of
from protocol.effects import Effect, FetchBlobs
from protocol.events import BlobsFailed
from protocol.facts import Counted, Gave
from protocol.limits import Limits
from protocol.messages import (
    Accept,
    AcceptedVote,
    Create,
    Created,
    Decided,
    Leads,
    Nack,
    Prepare,
    Promise,
    Receipts,
    ReceiptsAck,
    Renew,
    Renewal,
    Renewed,
    UnknownJob,
    WhoLeads,
)
from protocol.profile import Policy
from protocol.records import Part
from protocol.wire import Ballot, Holder, Range, Role
from tests.protocol.lone import Lone, misbehaved, of_kind, only, peer, sent, taken_in
from tests.protocol.record_story import HOLDERS, Story
from tests.protocol.samples import (
    award,
    body,
    certificate,
    holder,
    nonce_of,
    output_of,
    receipt,
    spec,
    split_award,
    vote,
)

FIVE = (*HOLDERS, "dan", "eve")
JOB = spec()
FIRST = Ballot(peer=peer("ann"))
FIRST_THREE, ANN = (holder("ann"), holder("bob"), holder("dan")), peer("ann")
SECOND = Ballot(epoch=1, peer=peer("bob"))
CANCELLED = body(JOB, status="cancelled", entries=(), output=None, succeeded=0, failed=0)


def witness(name: str = "bob", **fields: Any) -> Lone:
    """A holder of ann's job, which has heard of it from her."""
    lone = Lone(name, policy=Policy(accept_work=False), **fields)
    lone.receive("ann", Create(spec=JOB.signed))
    return lone


def promise(by: str, ballot: Ballot, **fields: Any) -> Promise:
    defaults: dict[str, Any] = {"store": holder(by).store, "wall_ms": 0}
    return Promise(job=JOB.digest, ballot=ballot, **(defaults | fields))


def votes_in(emitted: tuple[Effect, ...]) -> list[AcceptedVote]:
    return [message for _, message in sent(emitted, AcceptedVote)]


# -- critical: at most one final record, ever ---------------------------------------------------------------------


def test_f01_who_adopts_other_holders_decides_nothing_more_in_that_ballot() -> None:
    """A decree about holders and one about the end never share a register, nor a ballot."""
    bob = witness()
    asked = bob.wait(3_000)
    assert {message.ballot for _, message in sent(asked, Prepare)} == {SECOND}
    other_holders = Next(holders=(holder("ann"), holder("bob"), holder("dan")), steward=peer("ann"))
    emitted = bob.receive("cat", promise("cat", SECOND, voted_in=FIRST, voted_for=other_holders))
    assert {message.decree for _, message in sent(emitted, Accept)} == {other_holders}, "adopted"
    accepted = AcceptedVote(vote=vote(JOB, other_holders, by="cat", ballot=SECOND).signed)
    emitted += bob.receive("cat", accepted)
    assert sent(emitted, Decided)
    emitted += bob.wait(10_000)
    accepts = [message for _, message in sent(emitted, Accept)]
    assert {message.decree for message in accepts} == {other_holders}
    later = [message for _, message in sent(emitted, Prepare) if message.ballot.config == 1]
    assert later, "in the next configuration it has to be elected first"
    assert all(message.ballot.epoch >= 1 for message in later)


def test_f02_the_same_bytes_have_the_same_first_holders_wherever_they_are_handed_in() -> None:
    story = Story(*FIVE, accepted=False)
    mesh = story.mesh
    mesh.isolate("ann")
    assert mesh.submit("dan", story.spec, seconds=60).accepted
    mesh.heal()
    for name in FIVE:
        assert mesh.submit(name, story.spec, seconds=60).accepted
    story.wait_for_end()
    assert set(story.records()) == set(HOLDERS)
    assert {record.chain.configurations[0].peers for record in story.records().values()} == {
        tuple(mesh.ids[name] for name in HOLDERS)
    }
    assert story.repeated() == []


def test_f03_a_holder_with_another_disk_neither_promises_nor_votes() -> None:
    """It may have voted already, and does not know."""
    bob = witness(store=nonce_of("a new disk"))
    assert only(bob.receive("ann", Create(spec=JOB.signed)), Created).store == nonce_of("a new disk")
    emitted = bob.receive("cat", Prepare(job=JOB.digest, ballot=Ballot(epoch=1, peer=peer("cat"))))
    assert sent(emitted, Promise) == []
    assert sent(emitted, Nack)
    emitted = bob.receive("ann", Accept(job=JOB.digest, ballot=FIRST, decree=Next(holders=FIRST_THREE, steward=ANN)))
    assert votes_in(emitted) == []
    assert sent(bob.wait(20_000), Prepare) == [], "nor does it want to lead"


def test_f03_a_steward_with_another_disk_names_nobody_to_workers() -> None:
    """By the spec it is the steward, but it looks after nothing: a worker that believed it would wait for ever."""
    ann = Lone("ann", store=nonce_of("a new disk"))
    ann.receive("bob", Create(spec=JOB.signed))
    assert only(ann.receive("dan", WhoLeads(job=JOB.digest)), Leads).ballot is None
    ann.receive("bob", Renew(renewals=(Renewal(job=JOB.digest, ballot=SECOND, progress=1),)))
    assert only(ann.receive("dan", WhoLeads(job=JOB.digest)), Leads).ballot == SECOND


def test_a_restarted_steward_names_itself_once_it_is_elected_again() -> None:
    ann = Lone("ann", policy=Policy(accept_work=False), journal=ann_leads().journal)
    assert only(ann.receive("dan", WhoLeads(job=JOB.digest)), Leads).ballot is None
    ballot = Ballot(epoch=1, peer=peer("ann"))
    assert (peer("bob"), ballot) in [(to, message.ballot) for to, message in sent(ann.wait(3_000), Prepare)]
    assert only(ann.receive("dan", WhoLeads(job=JOB.digest)), Leads).ballot is None
    ann.receive("bob", promise("bob", ballot))
    assert only(ann.receive("dan", WhoLeads(job=JOB.digest)), Leads).ballot == ballot


def test_f03_what_a_holder_with_another_disk_says_does_not_count() -> None:
    bob = witness()
    bob.wait(3_000)
    emitted = bob.receive("cat", promise("cat", SECOND, store=nonce_of("a new disk")))
    assert not bob.peer._leadership.find(JOB.digest).elected  # type: ignore[union-attr]
    decree = Next(holders=FIRST_THREE, steward=ANN)
    emitted += bob.receive("ann", promise("ann", SECOND, voted_in=FIRST, voted_for=decree))
    assert bob.peer._leadership.find(JOB.digest).elected  # type: ignore[union-attr]
    stolen = vote(JOB, decree, by="cat", ballot=SECOND, store=nonce_of("a new disk"))
    emitted += bob.receive("cat", AcceptedVote(vote=stolen.signed))
    assert sent(emitted, Decided) == []
    emitted += bob.receive("ann", AcceptedVote(vote=vote(JOB, decree, by="ann", ballot=SECOND).signed))
    assert sent(emitted, Decided)


def test_f03_a_wiped_holder_does_not_help_to_decide_twice() -> None:
    """Ann and bob have decided; bob is wiped; cat, which knows nothing, cannot decide anything else with it."""
    story = Story(*HOLDERS)
    mesh = story.mesh
    mesh.isolate("cat")
    story.wait_for(lambda: {"ann", "bob"} <= set(story.finals()), 30)
    mesh.kill("ann")
    mesh.wipe("bob")
    mesh.heal()
    mesh.run_for(40)
    assert story.finals() == {}, "no majority of the holders is left"
    mesh.restart("ann")
    story.wait_for(lambda: {"ann", "cat"} <= set(story.finals()), 30)


def test_f04_a_finished_job_does_not_come_back() -> None:
    """Ann and bob have forgotten it; cat, long cut off, returns and would go on: they do not begin it anew."""
    story = Story(*FIVE, limits=Limits(jobs_max=1))
    mesh = story.mesh
    mesh.isolate("cat")
    story.wait_for(lambda: {"ann", "bob"} <= set(story.finals()), 30)
    mesh.run_for(70)
    for _ in range(3):
        assert mesh.submit("ann", mesh.spec("ann", holders=("ann", "bob", "dan"))).accepted
        mesh.run_for(70)
    assert set(story.records()) == {"cat"}
    mesh.heal()
    mesh.run_for(120)
    assert set(story.records()) == {"cat"}
    assert story.finals() == {}
    runs = [peer for peer, run in mesh.runs if run.job == story.spec.digest and run.task.role is Role.SPLIT]
    assert set(runs) <= {mesh.ids[name] for name in FIVE}
    assert not mesh.submit("ann", story.spec).accepted


def test_f04_there_is_no_holder_without_a_record() -> None:
    """An acceptor comes into being by ``Create`` with a good spec, never by being asked to promise."""
    bob = Lone("bob")
    emitted = bob.receive("cat", Prepare(job=JOB.digest, ballot=Ballot(epoch=1, peer=peer("cat"))))
    assert sent(emitted, UnknownJob) == [(peer("cat"), UnknownJob(job=JOB.digest))]
    emitted = bob.receive("ann", Accept(job=JOB.digest, ballot=FIRST, decree=Next(holders=FIRST_THREE, steward=ANN)))
    assert votes_in(emitted) == []
    old = spec(not_after=bob.wall)
    assert only(bob.receive("ann", Create(spec=old.signed)), Created).reason == "the job has expired"
    assert bob.peer.snapshot().tables["records"] == 0


# -- high ---------------------------------------------------------------------------------------------------------


def whole_job() -> tuple[tuple[Any, ...], FinalBody]:
    """Signed facts of a job that was done with one shard, and its true end."""
    job = JOB
    split = split_award(job)
    split_done = receipt(split, output=output_of("split"), shards=1)
    given = award(job, ranges=one_range(), shards=1, split_receipt=split_done.digest)
    shard_done = receipt(given, output=output_of("shard 0"))
    parts = (part_of(shard_done),)
    merging = award(
        job, role=Role.MERGE, ranges=one_range(), shards=1, split=None, split_receipt=None, parts=parts, nonce=9
    )
    merged = receipt(merging, output=output_of("merged"))
    done = (split_done, shard_done, merged)
    facts = (
        *(Gave(award=one.signed) for one in (split, given, merging)),
        *(Counted(receipt=one.signed) for one in done),
    )
    end = body(
        job,
        entries=tuple(Entry(task=one.record.task, receipt=one.digest) for one in done),
        total_shards=1,
        succeeded=1,
        failed=0,
        output=output_of("merged"),
    )
    return facts, end


def one_range() -> Any:
    return (Range(start=0, stop=1),)


def part_of(done: Any) -> Any:
    return Part(index=0, output=done.record.output, receipt=done.digest)


def test_f07_an_end_is_voted_for_only_with_its_body_and_all_that_it_rests_on() -> None:
    facts, end = whole_job()
    bob = witness()
    decree = Final(body=digest_of(end))
    emitted = bob.receive("ann", Accept(job=JOB.digest, ballot=FIRST, decree=decree))
    assert misbehaved(emitted)
    assert votes_in(emitted) == []
    whole = Accept(job=JOB.digest, ballot=FIRST, decree=decree, body=end)
    emitted = bob.receive("ann", whole)
    assert votes_in(emitted) == [], "its receipts are not known here"
    assert sent(emitted, Renewed)
    bob.receive("ann", Renew(renewals=(Renewal(job=JOB.digest, ballot=FIRST, progress=1, facts=facts),)))
    assert len(votes_in(bob.receive("ann", whole))) == 1
    again = Lone("bob", policy=Policy(accept_work=False), journal=bob.journal)
    emitted = again.receive("cat", Prepare(job=JOB.digest, ballot=Ballot(epoch=1, peer=peer("cat"))))
    assert only(emitted, Promise).body == end, "whoever takes over can read it"


def test_f08_what_a_lost_output_was_made_of_is_copied_too_or_made_again() -> None:
    """A successor finds nobody who has anything: nothing needs the shard's output, until the merge's is given up."""
    facts, _ = whole_job()
    cat = witness("cat")
    cat.wait(3_000)
    emitted = cat.receive("bob", promise("bob", Ballot(epoch=1, peer=peer("cat")), facts=facts))
    tries: Counter[str] = Counter()
    for _ in range(8):
        fetches = of_kind(emitted, FetchBlobs)
        emitted = ()
        for fetch in fetches:
            tries[fetch.blobs[0].cid] += 1
            emitted += cat.give(BlobsFailed(fetch.fetch, "nobody has it"))
        emitted += cat.wait(1_000)
    assert tries[output_of("merged").cid] == cat.limits.copy_tries
    assert tries[output_of("shard 0").cid] == 1 + cat.limits.copy_tries
    job = cat.peer._steward.find(JOB.digest)
    assert job is not None
    ready = [state.task.role for state in job.plan.tasks() if state.status == "ready"]
    assert Role.SHARD in ready, "it is not waited for by a merge that can never read it"


def test_f10_a_deaf_steward_with_the_end_in_sight_is_succeeded() -> None:
    """It repeated its wish for the end, which nobody took for the silence that it was."""
    story = Story(*FIVE)
    mesh = story.mesh
    story.wait_for(lambda: any(run.task.role is Role.MERGE for _, run in mesh.runs), 10, step=0.01)
    mesh.cut(*[(name, "ann") for name in FIVE[1:]])
    story.wait_for(lambda: {"bob", "cat"} <= set(story.finals()), 30)


def test_f10_a_steward_that_gets_nowhere_is_succeeded_but_not_again_and_again() -> None:
    """It renews, and says that tasks are ready that nobody has."""
    bob = witness()
    idle = Renew(renewals=(Renewal(job=JOB.digest, ballot=FIRST, progress=7, idle=True),))
    prepared = []
    for step in range(400):
        emitted = bob.receive("ann", idle) + bob.wait(500)
        if sent(emitted, Prepare):
            prepared.append(step * 0.5)
            highest = max(message.ballot for _, message in sent(emitted, Prepare))
            bob.receive("ann", Nack(job=JOB.digest, ballot=Ballot(epoch=highest.epoch + 1, peer=peer("ann"))))
            idle = Renew(
                renewals=(
                    Renewal(
                        job=JOB.digest,
                        ballot=Ballot(epoch=highest.epoch + 1, peer=peer("ann")),
                        progress=7,
                        idle=True,
                    ),
                )
            )
    assert prepared
    assert 55 <= prepared[0] <= 65
    assert all(later - earlier >= 100 for earlier, later in pairwise(prepared))


# -- medium -------------------------------------------------------------------------------------------------------


def ann_leads() -> Lone:
    ann = Lone("ann", policy=Policy(accept_work=False))
    ann.meet("bob", "cat", "dan")
    taken_in(ann, JOB, "bob", "cat")
    assert ann.peer.snapshot().stewarding == (JOB.digest,)
    return ann


def tries_of_split(ann: Lone) -> list[Any]:
    job = ann.peer._steward.find(JOB.digest)
    assert job is not None
    assert job.plan.split is not None
    return job.plan.split.tries


def test_f13_an_award_counts_whoever_of_the_holders_gave_it_under_whatever_ballot() -> None:
    """Cat took over in a partition, under a ballot that nobody promised: the work done for it is good."""
    ann = ann_leads()
    foreign = split_award(JOB, steward="cat", worker="dan", ballot=Ballot(epoch=9, peer=peer("cat")), nonce=5)
    done = receipt(foreign, worker="dan", output=output_of("split"))
    emitted = ann.receive("dan", Receipts(job=JOB.digest, receipts=(done.signed,), awards=(foreign.signed,)))
    assert only(emitted, ReceiptsAck).receipts == (done.digest,)
    job = ann.peer._steward.find(JOB.digest)
    assert job is not None
    assert job.plan.split is not None
    assert job.plan.split.pin is not None
    assert job.plan.split.pin.digest == done.digest


def test_f13_what_comes_before_that_on_which_it_rests_waits_for_it() -> None:
    """A steward that took over hears of a shard before it hears of the split."""
    ann = ann_leads()
    ballot = Ballot(epoch=9, peer=peer("cat"))
    split = split_award(JOB, steward="cat", worker="dan", ballot=ballot)
    split_done = receipt(split, worker="dan", output=output_of("split"))
    given = award(JOB, steward="cat", worker="dan", ballot=ballot, split_receipt=split_done.digest)
    shard_done = receipt(given, worker="dan", output=output_of("shard 0"))
    for done, of in ((shard_done, given), (split_done, split)):
        emitted = ann.receive("dan", Receipts(job=JOB.digest, receipts=(done.signed,), awards=(of.signed,)))
        assert only(emitted, ReceiptsAck).receipts == (done.digest,)
    job = ann.peer._steward.find(JOB.digest)
    assert job is not None
    assert [shard.status for shard in job.plan.shards] == ["success", "ready", "awarded", "awarded"]


def test_f13_an_award_by_somebody_that_never_held_the_job_does_not_count() -> None:
    ann = ann_leads()
    foreign = split_award(JOB, steward="eve", worker="dan", ballot=Ballot(epoch=9, peer=peer("eve")), nonce=5)
    done = receipt(foreign, worker="dan", output=output_of("split"))
    assert misbehaved(ann.receive("dan", Receipts(job=JOB.digest, receipts=(done.signed,), awards=(foreign.signed,))))
    assert tries_of_split(ann) == []


def test_f14_two_stewards_that_number_their_tries_alike_mean_different_tries() -> None:
    ann = ann_leads()
    for steward, worker in (("cat", "dan"), ("bob", "dan")):
        ballot = Ballot(epoch=3, peer=peer(steward))
        given = split_award(JOB, steward=steward, worker=worker, ballot=ballot, attempt=1)
        failure = receipt(given, worker=worker, success=False, output=None, shards=0, error=f"by {steward}")
        ann.receive(worker, Receipts(job=JOB.digest, receipts=(failure.signed,), awards=(given.signed,)))
    assert [(one.attempt, one.outcome, one.reason) for one in tries_of_split(ann)] == [
        (1, "failed", "by cat"),
        (1, "failed", "by bob"),
    ]
    job = ann.peer._steward.find(JOB.digest)
    assert job is not None
    assert job.plan.split is not None
    assert job.plan.split.failures == 2


def test_f15_there_are_never_two_holders_or_four() -> None:
    """Two of two stop at the loss of either; one and a copy only at the loss of the one."""
    story = Story("ann", "bob")
    mesh = story.mesh
    mesh.run_ms = 200_000
    assert story.holders() == ("ann",)
    mesh.run_for(60)
    assert story.holders() == ("ann",)
    for name, number in (("cat", 3), ("dan", 3), ("eve", 3)):
        mesh.add(name)
        mesh.run_for(40)
        assert len(story.holders()) == number
    every = [len(one.holders) for record in story.records().values() for one in record.chain.configurations]
    assert set(every) == {1, 3}


@pytest.mark.parametrize(("durability", "holders", "copies"), [(1, 3, 2), (2, 5, 3)])
def test_f16_five_holders_come_with_three_copies_of_the_data(durability: int, holders: int, copies: int) -> None:
    story = Story(*FIVE, "fay", accepted=False)
    job = story.mesh.spec("ann", durability=durability)
    assert len(job.record.holders) == holders
    assert story.mesh.submit("ann", job).copies == copies


LIES = {
    "an output that the merge did not make": {"output": output_of("a lie")},
    "a task twice": "twice",
    "a task left out": "left out",
    "a receipt of another task": "swapped",
    "more shards than there were": {"total_shards": 2, "succeeded": 2},
    "a failure among the successes": {"failed": 1},
    "another job": {"job": bytes(32)},
    "no end that there is": {"status": "running"},
    "a cancel that nobody signed": {"status": "cancelled", "output": None},
    "an output of what failed": {"status": "failed"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_f20_a_lying_steward_finds_nobody_to_vote_for_what_was_not_computed(lie: Any) -> None:
    facts, end = whole_job()
    split, shard, merge = end.entries
    match lie:
        case "twice":
            end = msgspec.structs.replace(end, entries=(split, shard, shard, merge))
        case "left out":
            end = msgspec.structs.replace(end, entries=(split, merge))
        case "swapped":
            wrong = Entry(task=shard.task, receipt=merge.receipt)
            end = msgspec.structs.replace(end, entries=(split, wrong, merge))
        case dict():
            end = msgspec.structs.replace(end, **lie)
    bob = witness()
    bob.receive("ann", Renew(renewals=(Renewal(job=JOB.digest, ballot=FIRST, progress=1, facts=facts),)))
    accept = Accept(job=JOB.digest, ballot=FIRST, decree=Final(body=digest_of(end)), body=end)
    assert votes_in(bob.receive("ann", accept)) == []


def test_f20_a_certificate_needs_a_majority_of_the_holders_by_the_disks_they_had() -> None:
    bob = witness()
    end = CANCELLED
    for by, fields in ((("ann",), {}), (("ann", "eve"), {}), (("ann", "cat"), {"store": nonce_of("a new disk")})):
        bad = certificate(JOB, Final(body=digest_of(end)), by=by, **fields)
        assert misbehaved(bob.receive("ann", Decided(job=JOB.digest, chain=(bad,), body=end)))
        assert bob.peer._keeper.find(JOB.digest).final is None  # type: ignore[union-attr]
    twice = certificate(JOB, Final(body=digest_of(end)), by=("ann", "ann"))
    assert misbehaved(bob.receive("ann", Decided(job=JOB.digest, chain=(twice,), body=end)))
    good = certificate(JOB, Final(body=digest_of(end)), by=("ann", "cat"))
    bob.receive("ann", Decided(job=JOB.digest, chain=(good,), body=end))
    assert bob.peer._keeper.find(JOB.digest).final == end  # type: ignore[union-attr]


def test_a_vote_is_on_disk_before_it_is_given_and_binds_after_a_restart() -> None:
    bob = witness()
    decree = Next(holders=FIRST_THREE, steward=ANN)
    assert len(votes_in(bob.receive("ann", Accept(job=JOB.digest, ballot=FIRST, decree=decree)))) == 1
    again = Lone("bob", journal=bob.journal, policy=Policy(accept_work=False))
    other = Next(holders=(holder("ann"), holder("bob"), holder("eve")), steward=ANN)
    emitted = again.receive("ann", Accept(job=JOB.digest, ballot=FIRST, decree=other))
    assert votes_in(emitted) == []
    emitted = again.receive("cat", Prepare(job=JOB.digest, ballot=Ballot(epoch=1, peer=peer("cat"))))
    answer = only(emitted, Promise)
    assert (answer.voted_in, answer.voted_for) == (FIRST, decree)
    third = Lone("bob", journal=again.journal, policy=Policy(accept_work=False))
    assert votes_in(third.receive("ann", Accept(job=JOB.digest, ballot=FIRST, decree=decree))) == [], "promised since"


def test_a_holder_of_another_configuration_is_not_made_one_by_a_name_alone() -> None:
    """The store in the decree is what counts."""
    bob = witness()
    elsewhere = Next(
        holders=(holder("ann"), Holder(peer=peer("bob"), store=nonce_of("elsewhere")), holder("dan")), steward=ANN
    )
    bob.receive("ann", Decided(job=JOB.digest, chain=(certificate(JOB, elsewhere, by=("ann", "cat")),)))
    record = bob.peer._keeper.find(JOB.digest)
    assert record is not None
    assert record.chain.current.number == 1
    assert record.acceptor is None
