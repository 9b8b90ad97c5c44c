"""Each rule is shown to fail on a planted violation: a checker that cannot fail checks nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from protocol.decrees import Certificate, Final, FinalBody, digest_of
from protocol.effects import FetchBlobs, Notice, Record, Reply, Send, StartRun, StopRun
from protocol.events import MessageReceived, PeerLost, RunFailed, WakeupReached
from protocol.messages import (
    Ack,
    Decided,
    JobView,
    Offer,
    OfferAccepted,
    Receipts,
    ReceiptsAck,
    Returned,
    Revoke,
    StatusReply,
    TaskView,
    TryView,
)
from protocol.records import Award, JobSpec, Receipt, StageSpec, Vote
from protocol.signing import Opened, sign
from protocol.wire import Ballot, Holder, Link, Output, Range, Role, Task
from simulations import final
from simulations.errors import Violation
from simulations.machines import MESH, Machine
from simulations.workload import Job
from simulations.world import World
from tests.simulations.fakes import ScriptedPeer, do, peer_of, run_ms, world_of


class Story:
    """A job of two shards: machine 0 is its steward, machine 1 its worker."""

    def __init__(self) -> None:
        self.world = world = world_of(3)
        self.steward, self.worker, self.other = world.machines.all
        job_input = world.library.job_input("photo", parts=2, photo_bytes=1000)
        manifest = world.library.make("manifest", size=1000)
        self.stage = StageSpec(
            name="", model="m", manifest=manifest.link, split="tile", merge="concat-json", timeout_ms=1_000
        )
        submitter = world.signer()
        self.spec = sign(
            JobSpec(
                mesh=MESH,
                submitter=submitter.peer_id,
                nonce=bytes(16),
                issued_at=0,
                not_after=1 << 50,
                deadline_ms=1 << 30,
                holders=(Holder(peer=self.steward.peer_id, store=self.steward.store),),
                steward=self.steward.peer_id,
                input=job_input.link,
                stages=(self.stage,),
            ),
            submitter,
        )
        library = world.library
        self.job = Job(
            self.spec, self.steward, library.total_shards(self.spec.record), library.expected(self.spec.record)
        )
        world.workload.jobs[self.job.digest] = self.job
        #: What the steward's peer holds of the job, as far as rules look at it.
        self.record = SimpleNamespace(
            final=None,
            complete=True,
            acceptor=None,
            promised=Ballot(peer=self.steward.peer_id),
            chain=SimpleNamespace(certificates=()),
            facts=SimpleNamespace(held=(), cancelled=False, awards={}, receipts={}),
        )
        peer_of(self.steward).records[self.job.digest] = self.record
        split = world.library.split(self.stage, job_input.output.cid).output
        self.awards = {
            Role.SPLIT: self.award(Role.SPLIT),
            Role.SHARD: self.award(Role.SHARD, stop=2, shards=2, split=split),
            Role.MERGE: self.award(Role.MERGE, shards=2),
        }
        first = self.receipt(Task(role=Role.SPLIT), split)
        shards = [
            self.receipt(Task(index=index), output, upstream=(first.digest,))
            for index, output in enumerate(self.job.expected_shards)
        ]
        merged = self.receipt(
            Task(role=Role.MERGE), self.job.expected_output, upstream=tuple(one.digest for one in shards)
        )
        self.receipts = {one.record.task: one for one in (first, *shards, merged)}

    def award(self, role: Role, *, stop: int = 1, signer: Machine | None = None, **fields: Any) -> Opened[Award]:
        by = signer or self.steward
        return sign(
            Award(
                **(
                    {
                        "job": self.spec.digest,
                        "holders": (),
                        "steward": by.peer_id,
                        "ballot": Ballot(peer=by.peer_id),
                        "worker": self.worker.peer_id,
                        "stage": 0,
                        "role": role,
                        "ranges": (Range(start=0, stop=stop),),
                        "attempt": 1,
                        "lease_ms": 5_000,
                        "nonce": 1,
                        "issued_at": 0,
                        "not_after": 1 << 50,
                    }
                    | fields
                )
            ),
            by.signer,
        )

    def receipt(self, task: Task, output: Output, *, signer: Machine | None = None, **fields: Any) -> Opened[Receipt]:
        by = signer or self.worker
        return sign(
            Receipt(
                **(
                    {
                        "job": self.spec.digest,
                        "task": task,
                        "award": self.awards[task.role].digest,
                        "attempt": 1,
                        "worker": by.peer_id,
                        "success": True,
                        "output": output,
                        "input_hash": bytes(32),
                        "started_at": 0,
                        "issued_at": 0,
                    }
                    | fields
                )
            ),
            by.signer,
        )

    # -- what the steward says

    def view(self, **fields: Any) -> JobView:
        return JobView(
            **(
                {
                    "job": self.spec.digest,
                    "alias": "",
                    "submitter": self.spec.record.submitter,
                    "steward": self.steward.peer_id,
                    "model": "m",
                    "status": "success",
                    "merge_status": "success",
                    "total_shards": 2,
                    "succeeded": 2,
                    "failed": 0,
                    "running": 0,
                    "output": self.job.expected_output,
                    "issued_at": 0,
                    "completed_at": 1,
                }
                | fields
            )
        )

    def says(self, view: JobView | None = None, tasks: tuple[TaskView, ...] | None = None) -> None:
        """From now on the steward answers this."""
        reply = StatusReply(
            number=0,
            view=view or self.view(),
            tasks=self.tasks() if tasks is None else tasks,
            awards=tuple(award.signed for award in self.awards.values()),
        )
        peer_of(self.steward).status = [Reply(0, reply)]

    def tasks(self) -> tuple[TaskView, ...]:
        return tuple(
            TaskView(task=task, status="success", receipt=receipt.signed) for task, receipt in self.receipts.items()
        )

    def with_receipt(self, receipt: Opened[Receipt]) -> tuple[TaskView, ...]:
        """The tasks, one of them with another receipt."""
        self.receipts[receipt.record.task] = receipt
        return self.tasks()

    def inspect(self) -> None:
        self.world.checkers.jobs.inspect_job(self.job, self.steward)

    def ends(self, status: str = "success", **fields: Any) -> Decided:
        """The only holder has voted for an end, and tells the worker; what it told."""
        given = {"total_shards": 2, "succeeded": 2, "output": self.job.expected_output}
        if status != "success":
            given = {"error": "no stars"}
        body = FinalBody(job=self.spec.digest, status=status, completed_at=1, clock=1, **(given | fields))
        decree, ballot = Final(body=digest_of(body)), Ballot(peer=self.steward.peer_id)
        vote = Vote(
            job=self.spec.digest,
            ballot=ballot,
            decree=digest_of(decree),
            peer=self.steward.peer_id,
            store=self.steward.store,
        )
        votes = (sign(vote, self.steward.signer).signed,)
        told = Decided(job=self.spec.digest, chain=(Certificate(ballot=ballot, decree=decree, votes=votes),), body=body)
        do(self.world, self.steward, Send(self.worker.peer_id, told))
        return told

    # -- what the worker does

    def hears(self, message: Any, sender: Machine | None = None) -> None:
        self.world.feed(self.worker, MessageReceived((sender or self.steward).peer_id, message))

    def accepts(self, award: Opened[Award]) -> None:
        self.hears(Offer(award=award.signed, spec=self.spec.signed, sources=()))
        do(self.world, self.worker, Send(self.steward.peer_id, OfferAccepted(award=award.digest)))

    def runs(self, number: int = 1, index: int = 0) -> None:
        run = StartRun(
            run=number,
            job=self.spec.digest,
            task=Task(index=index),
            attempt=1,
            stage=self.stage,
            input=self.spec.record.input,
            shards=2,
            split=self.awards[Role.SHARD].record.split,
            parts=(),
            sources=(),
        )
        do(self.world, self.worker, run)


@pytest.fixture
def story() -> Story:
    return Story()


def broken(rule: str, words: str = "") -> Any:
    return pytest.raises(Violation, match=f"^{rule}: .*{words}")


# -- senders


def test_a_sound_story_breaks_no_rule(story: Story) -> None:
    story.accepts(story.awards[Role.SHARD])
    story.runs()
    story.says()
    story.inspect()


def test_a_peer_does_not_send_to_itself(story: Story) -> None:
    with broken("senders", "to itself"):
        do(story.world, story.worker, Send(story.worker.peer_id, Ack(number=1, wall_ms=0)))


def test_only_the_steward_offers_its_awards(story: Story) -> None:
    offer = Offer(award=story.awards[Role.SHARD].signed, spec=story.spec.signed, sources=())
    with broken("senders", "not its own"):
        do(story.world, story.other, Send(story.worker.peer_id, offer))


def test_only_the_worker_delivers_its_receipts(story: Story) -> None:
    receipts = Receipts(job=story.spec.digest, receipts=(story.receipts[Task()].signed,))
    with broken("senders", "receipt that is not its own"):
        do(story.world, story.other, Send(story.steward.peer_id, receipts))


def test_honest_peers_understand_each_other(story: Story) -> None:
    with broken("senders", "honest"):
        do(story.world, story.worker, Notice("debug", "not understood: Ping: too long"))


# -- wake-ups and tables


def test_a_peer_that_never_stops_waking_is_caught(story: Story) -> None:
    with broken("wakeups"):
        for _ in range(200):
            story.world.feed(story.worker, WakeupReached())


def test_a_table_over_its_bound_is_caught(story: Story) -> None:
    peer_of(story.worker).view.tables = {"jobs": story.world.options.limits.jobs_max + 1}
    with broken("tables", "jobs"):
        story.world.checkers.tables.check(story.worker)


# -- leases and runs


def test_a_run_needs_a_lease(story: Story) -> None:
    with broken("leases", "without a live lease"):
        story.runs()


@pytest.mark.parametrize(
    "end",
    [
        lambda story: story.hears(Revoke(award=story.awards[Role.SHARD].digest, reason="")),
        lambda story: story.hears(story.ends()),
        lambda story: do(
            story.world,
            story.worker,
            Send(story.steward.peer_id, Returned(award=story.awards[Role.SHARD].digest, reason="")),
        ),
        lambda story: run_ms(story.world, 5_001),
    ],
    ids=["revoked", "closed", "returned", "expired"],
)
def test_nothing_starts_under_a_lease_that_has_ended(story: Story, end: Callable[[Story], None]) -> None:
    story.accepts(story.awards[Role.SHARD])
    end(story)
    with broken("leases", "without a live lease"):
        story.runs()


def test_a_lease_covers_only_its_tasks(story: Story) -> None:
    story.accepts(story.award(Role.SHARD, stop=1, shards=2, nonce=2))
    with broken("leases", "without a live lease"):
        story.runs(index=1)


def test_an_award_is_accepted_only_after_its_offer(story: Story) -> None:
    with broken("leases", "not offered"):
        do(story.world, story.worker, Send(story.steward.peer_id, OfferAccepted(award=bytes(32))))


def test_runs_stay_within_the_slots(story: Story) -> None:
    story.worker.slots = 1
    story.accepts(story.awards[Role.SHARD])
    story.runs(1)
    with broken("runs", "in 1 slots"):
        story.runs(2, index=1)


def test_a_run_number_is_used_once(story: Story) -> None:
    story.accepts(story.awards[Role.SHARD])
    story.runs(1)
    with broken("runs", "again"):
        story.runs(1)


def test_a_run_is_answered_once(story: Story) -> None:
    failed = RunFailed(
        run=9, reason="", counts=False, input_hash=b"", image="", runtime="", pull_ms=0, transfer_ms=0, run_ms=0,
        started_at=0,  # type: ignore[arg-type]
    )  # fmt: skip
    with broken("runs", "never started"):
        story.world.feed(story.worker, failed)


# -- jobs


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"success": False}, "something else"),
        ({"attempt": 2}, "does not allow"),
        ({"award": bytes(32)}, "not shown"),
        ({"job": bytes(32)}, "something else"),
        ({"output": Output(cid="wrong", size=1, sha256=bytes(32))}, "do not imply"),
    ],
)
def test_a_receipt_that_does_not_fit_does_not_count(story: Story, changed: dict[str, Any], words: str) -> None:
    good = story.receipts[Task()].record
    bad = sign(replace(good, **changed), story.worker.signer)
    story.says(tasks=story.with_receipt(bad))
    with broken("receipts", words):
        story.inspect()


def test_only_the_awards_worker_signs(story: Story) -> None:
    output = story.job.expected_shards[0]
    story.says(tasks=story.with_receipt(story.receipt(Task(), output, signer=story.other)))
    with broken("receipts", "does not allow"):
        story.inspect()


def test_only_the_jobs_steward_awards(story: Story) -> None:
    foreign = story.awards[Role.SHARD] = story.award(Role.SHARD, stop=2, shards=2, signer=story.other)
    good = story.receipts[Task()].record
    story.says(tasks=story.with_receipt(sign(replace(good, award=foreign.digest), story.worker.signer)))
    with broken("receipts", "no holder of it made"):
        story.inspect()


def test_a_task_counts_with_a_receipt_and_once(story: Story) -> None:
    story.says(tasks=(*story.tasks(), TaskView(task=Task(), status="success")))
    with broken("receipts", "twice"):
        story.inspect()
    story.says(tasks=(TaskView(task=Task(), status="success"),))
    with broken("receipts", "without a receipt"):
        story.inspect()


def test_the_count_is_the_number_of_tasks_that_count(story: Story) -> None:
    story.says(story.view(succeeded=1))
    with broken("receipts", "counts 1 shards"):
        story.inspect()


@pytest.mark.parametrize("task", [Task(), Task(role=Role.MERGE)])
def test_a_receipt_names_what_counts_before_it(story: Story, task: Task) -> None:
    bad = sign(replace(story.receipts[task].record, upstream=()), story.worker.signer)
    story.says(tasks=story.with_receipt(bad))
    with broken("ancestry"):
        story.inspect()


@pytest.mark.parametrize(("before", "after"), [("running", "queued"), ("success", "running")])
def test_a_job_never_goes_back(story: Story, before: str, after: str) -> None:
    story.says(story.view(status=before))
    story.inspect()
    story.says(story.view(status=after))
    with broken("status"):
        story.inspect()


@pytest.mark.parametrize("changed", [{"status": "failed"}, {"output": None}, {"completed_at": 2}])
def test_what_has_ended_stays_as_it_is(story: Story, changed: dict[str, Any]) -> None:
    story.says()
    story.inspect()
    story.says(story.view(**changed))
    with broken("status", "ended as"):
        story.inspect()


def test_asking_changes_nothing(story: Story) -> None:
    story.says()
    peer_of(story.steward).status.append(Send(story.worker.peer_id, Ack(number=1, wall_ms=0)))
    with broken("jobs", "had effects"):
        story.inspect()


def test_an_end_that_the_holders_did_not_decide_is_caught(story: Story) -> None:
    story.ends()
    with broken("status", "its holders decided"):
        story.world.checkers.jobs.seen_from_afar(story.job, story.view(status="failed"))


# -- restarts


def restart(story: Story, machine: Machine, view: JobView | None = None, **says: Any) -> None:
    """A machine crashes and is back at once with its disk; as the steward it then answers ``view``."""

    def build(**given: Any) -> ScriptedPeer:
        peer = ScriptedPeer(**given)
        if machine is story.steward:
            reply = StatusReply(number=0, view=view, awards=tuple(award.signed for award in story.awards.values()))
            peer.status = [Reply(0, replace(reply, tasks=says.get("tasks", story.tasks()) if view else ()))]
            peer.records = {story.job.digest: story.record} if view is not None else {}
        return peer

    story.world.build_peer = build
    story.world.machines.crash(machine)
    story.world.machines.start(machine)


def test_a_restart_that_keeps_everything_breaks_no_rule(story: Story) -> None:
    story.says()
    story.inspect()
    restart(story, story.steward, story.view())


def test_an_accepted_job_that_a_restart_forgot_is_caught(story: Story) -> None:
    story.job.accepted_at = 1
    with broken("durability", "forgotten"):
        restart(story, story.steward, None)


def test_an_end_that_a_restart_changed_is_caught(story: Story) -> None:
    story.says()
    story.inspect()
    story.record.final = "the end"
    with broken("status", "ended as"):
        restart(story, story.steward, story.view(completed_at=2))


def test_an_end_that_somebody_was_told_of_holds_also_while_the_steward_is_down(story: Story) -> None:
    story.world.machines.crash(story.steward)
    story.world.checkers.jobs.seen_from_afar(story.job, story.view())
    with broken("status", "ended as"):
        story.world.checkers.jobs.seen_from_afar(story.job, story.view(completed_at=2))


def test_an_incarnation_that_does_not_grow_in_a_restart_is_caught(story: Story) -> None:
    peer_of(story.worker).view.incarnation = 1 << 40
    with broken("incarnations", "before its crash"):
        restart(story, story.worker)


def test_an_incarnation_that_goes_back_between_restarts_is_caught(story: Story) -> None:
    peer_of(story.worker).view.incarnation = -1
    with broken("incarnations", "back to"):
        story.world.machines.crash(story.worker)


def test_a_wiped_disk_may_start_its_incarnations_again(story: Story) -> None:
    peer_of(story.worker).view.incarnation = 1 << 40
    story.world.machines.crash(story.worker)
    story.world.machines.wipe(story.worker)
    story.world.machines.start(story.worker)


def delivers(story: Story) -> None:
    story.says()
    receipts = Receipts(job=story.spec.digest, receipts=(story.receipts[Task()].signed,))
    do(story.world, story.worker, Send(story.steward.peer_id, receipts))


def acknowledges(story: Story) -> None:
    story.hears(ReceiptsAck(receipts=(story.receipts[Task()].digest,)))


def test_a_receipt_that_a_restart_forgot_is_caught(story: Story) -> None:
    delivers(story)
    restart(story, story.worker)
    with broken("delivery", "forgotten receipts"):
        run_ms(story.world, 20_000)


def delivers_on(story: Story) -> None:
    delivers(story)
    run_ms(story.world, 1_000)
    delivers(story)


@pytest.mark.parametrize(
    "settle",
    [acknowledges, lambda story: story.hears(story.ends()), delivers_on],
    ids=["acknowledged", "closed", "sent again"],
)
@pytest.mark.parametrize("before", [True, False], ids=["before the crash", "after it"])
def test_a_receipt_is_owed_until_it_is_settled(story: Story, settle: Callable[[Story], None], before: bool) -> None:
    delivers(story)
    if before and settle is not delivers_on:
        settle(story)
    restart(story, story.worker)
    if not before or settle is delivers_on:
        settle(story)
    run_ms(story.world, 20_000)


def test_a_receipt_that_is_sent_once_is_caught(story: Story) -> None:
    delivers(story)
    with broken("delivery", "sends a receipt once"):
        run_ms(story.world, 20_000)


@pytest.mark.parametrize("settle", [acknowledges, lambda story: story.hears(story.ends()), delivers])
def test_one_that_is_sent_again_or_settled_is_not(story: Story, settle: Callable[[Story], None]) -> None:
    delivers(story)
    run_ms(story.world, 1_000)
    settle(story)
    run_ms(story.world, 20_000)


def test_who_took_itself_for_the_steward_has_time_to_ask_the_other_holders(story: Story) -> None:
    delivers(story)
    restart(story, story.worker)
    peer_of(story.worker).records[story.spec.digest] = story.record
    run_ms(story.world, 8_000)
    delivers(story)
    run_ms(story.world, 20_000)


def test_but_no_longer_than_that_takes(story: Story) -> None:
    delivers(story)
    restart(story, story.worker)
    peer_of(story.worker).records[story.spec.digest] = story.record
    with broken("delivery", "forgotten receipts"):
        run_ms(story.world, 20_000)


def test_who_has_no_steward_left_owes_nothing(story: Story) -> None:
    delivers(story)
    for machine in (story.worker, story.steward):
        story.world.machines.crash(machine)
    story.world.machines.wipe(story.steward)
    story.world.machines.start(story.worker)
    run_ms(story.world, 20_000)


# -- what is revoked ends


@pytest.mark.parametrize("stops", [True, False])
def test_what_runs_under_a_revoked_award_is_stopped(story: Story, stops: bool) -> None:
    award = story.awards[Role.SHARD]
    story.accepts(award)
    story.runs(number=1, index=1)
    if stops:
        peer_of(story.worker).script = [StopRun(1)]
    story.hears(Revoke(award=award.digest, reason="no longer wanted"))
    if stops:
        run_ms(story.world, 1)
    else:
        with broken("leases", "goes on with shard 1, which was revoked"):
            run_ms(story.world, 1)


def test_who_is_not_listened_to_revokes_nothing(story: Story) -> None:
    """Neither somebody else, nor a steward that is banned."""
    award = story.awards[Role.SHARD]
    story.accepts(award)
    story.hears(Revoke(award=award.digest, reason="out of the way"), story.other)
    peer_of(story.worker).banned.add(story.steward.peer_id)
    story.hears(Revoke(award=award.digest, reason="out of the way"))
    story.runs(number=1, index=1)
    run_ms(story.world, 1)


# -- one moment has an end


def test_a_peer_that_sends_again_whatever_comes_back_is_caught(story: Story) -> None:
    lost = PeerLost(story.other.peer_id, "no address is known")
    for _ in range(1_000):
        story.world.feed(story.worker, lost)
    run_ms(story.world, 1)
    story.world.feed(story.worker, lost)
    run_ms(story.world, 1)
    for _ in range(1_000):
        story.world.feed(story.worker, lost)
    with broken("storms"):
        story.world.feed(story.worker, lost)


# -- what is done is not done again


def offers(story: Story, attempt: int, nonce: int = 9) -> None:
    award = story.award(Role.SHARD, stop=1, shards=2, attempt=attempt, nonce=nonce)
    offer = Offer(award=award.signed, spec=story.spec.signed, sources=())
    do(story.world, story.steward, Send(story.worker.peer_id, offer))


def counts(story: Story, *, copied: bool) -> None:
    """Shard 0 counts; the steward has its copy if ``copied``."""
    tried = TryView(worker=story.worker.peer_id, attempt=1, award=story.awards[Role.SHARD].digest, outcome="success")
    story.says(
        story.view(status="running", output=None, succeeded=1, merge_status="pending"),
        tasks=(TaskView(task=Task(), status="success", receipt=story.receipts[Task()].signed, tries=(tried,)),),
    )
    story.inspect()
    output = story.job.expected_shards[0]
    if copied:
        link = Link(cid=output.cid, size=output.size)
        story.worker.disk.add(output.cid)
        do(story.world, story.steward, FetchBlobs(1, (link,), (story.worker.peer_id,), 0))
        run_ms(story.world, 5_000)


def test_a_new_award_of_what_is_done_is_caught(story: Story) -> None:
    counts(story, copied=True)
    with broken("repeats", "shard 0 is done"):
        offers(story, attempt=2)


def test_also_by_a_steward_to_itself(story: Story) -> None:
    counts(story, copied=True)
    peer_of(story.steward).stewarding = (story.spec.digest,)
    run = StartRun(
        run=1,
        job=story.spec.digest,
        task=Task(),
        attempt=2,
        stage=story.stage,
        input=story.spec.record.input,
        shards=2,
        split=None,
        parts=(),
        sources=(),
    )
    with broken("repeats", "shard 0 is done"):
        do(story.world, story.steward, run)


def test_what_was_lost_before_its_copy_came_may_be_done_again(story: Story) -> None:
    counts(story, copied=False)
    offers(story, attempt=2)


def test_an_old_award_may_be_offered_again(story: Story) -> None:
    counts(story, copied=True)
    offers(story, attempt=1)


# -- the journal


def test_a_message_that_leaves_before_the_records_of_its_call_are_kept_is_caught(story: Story) -> None:
    story.worker.journal.write(Record("table", b"key", b"value"))
    with broken("journal", "leaves peer 1 before"):
        story.world.network.send(story.worker, story.steward.peer_id, Ack(number=1, wall_ms=0))


# -- finally


def finished(story: Story) -> World:
    story.job.accepted_at = 1
    return story.world


def test_a_job_that_succeeded_is_enough_at_the_end(story: Story) -> None:
    story.ends()
    final.check_jobs(finished(story))


def test_a_job_that_did_not_end_fails_the_run(story: Story) -> None:
    with broken("liveness", "has not ended"):
        final.check_jobs(finished(story))


def test_a_job_that_did_not_succeed_fails_the_run(story: Story) -> None:
    story.ends("failed")
    with broken("liveness", "is failed"):
        final.check_jobs(finished(story))


def test_a_job_that_was_cancelled_on_purpose_is_fine(story: Story) -> None:
    story.job.cancelled = True
    story.ends("cancelled")
    final.check_jobs(finished(story))


def test_nobody_ends_a_job_that_nobody_cancelled(story: Story) -> None:
    with broken("ending", "nobody wanted"):
        story.ends("cancelled")


def test_an_end_with_a_wrong_output_is_caught(story: Story) -> None:
    with broken("ending", "do not imply"):
        story.ends(output=Output(cid="wrong", size=1, sha256=bytes(32)))


def test_a_job_whose_steward_lost_its_disk_is_excused(story: Story) -> None:
    story.says(story.view(status="running"))
    world = finished(story)
    world.machines.crash(story.steward)
    world.machines.wipe(story.steward)
    final.check_jobs(world)


def test_a_job_whose_steward_came_back_is_not(story: Story) -> None:
    world = finished(story)
    restart(story, story.steward, story.view(status="running"))
    with broken("liveness", "has not ended"):
        final.check_jobs(world)


def test_a_holder_learns_how_its_job_ended_unless_nobody_is_left_who_knows(story: Story) -> None:
    world = finished(story)
    story.ends()
    peer_of(story.steward).records[story.spec.digest] = story.record
    with broken("liveness", "holder 0 of .* does not know how it ended"):
        final.check_records(world)
    story.steward.gone = True
    final.check_records(world)


def test_a_lease_that_is_left_fails_the_run(story: Story) -> None:
    peer_of(story.worker).view.leases = 1
    with broken("quiet"):
        final.check_quiet(story.world)


def connect(*machines: Machine) -> None:
    for machine in machines:
        neighbours = tuple(other.peer_id for other in machines if other is not machine)
        peer_of(machine).view.neighbours = neighbours


def test_a_mesh_that_fell_apart_fails_the_run(story: Story) -> None:
    connect(story.steward, story.worker, story.other)
    final.check_mesh(story.world)
    peer_of(story.other).view.neighbours = ()
    connect(story.steward, story.worker)
    with broken("mesh", "fell apart"):
        final.check_mesh(story.world)


def test_a_dead_peer_that_is_still_known_fails_the_run(story: Story) -> None:
    connect(story.steward, story.worker, story.other)
    dead = story.other.peer_id
    story.world.machines.crash(story.other)
    with broken("mesh", "dead neighbour"):
        final.check_mesh(story.world)
    connect(story.steward, story.worker)
    peer_of(story.worker).view.known = (SimpleNamespace(peer=dead),)
    with broken("mesh", "knows the dead peer"):
        final.check_mesh(story.world)


def test_a_job_that_is_not_found_fails_the_run(story: Story) -> None:
    story.ends()
    with broken("lookup", "found nothing"):
        final.check_lookups(finished(story))
