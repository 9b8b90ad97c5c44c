"""The plan of one stage: what counts is always closed, and it always gets to an end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.identity import PeerId
from protocol.lease import ranges_of
from protocol.plan import Plan, TaskState, TaskStatus, Try, flaw_in
from protocol.records import Award, Receipt, StageSpec
from protocol.signing import Opened, Signed
from protocol.wire import Ballot, Output, Role, Task
from tests.protocol.samples import award, failed_receipt, output_of, receipt, split_award, stage

WORKERS = [PeerId(f"worker-{number}") for number in range(3)]
ME = PeerId("steward")


@dataclass
class Given:
    """An award that is out, as the steward keeps it."""

    award: Opened[Award]
    left: list[Task]


def unsigned(record: Award | Receipt, name: str) -> Opened[Award] | Opened[Receipt]:
    digest = hashlib.sha256(name.encode()).digest()
    return Opened(record, digest, Signed(payload=name.encode(), signature=bytes(64)))  # type: ignore[return-value]


class Client:
    """Does with a plan what a steward does: awards, receipts, losses. No signatures: ``Plan`` checks none."""

    def __init__(self, stage: StageSpec) -> None:
        self.plan = Plan(stage)
        self.given: list[Given] = []
        self.receipts: dict[bytes, tuple[Opened[Receipt], Opened[Award]]] = {}
        self.count = 0

    def give(self, states: list[TaskState], worker: PeerId) -> Given:
        plan, role = self.plan, states[0].task.role
        split = plan.split if role is Role.SHARD else None
        record = Award(
            job=bytes(32),
            holders=(),
            steward=ME,
            ballot=Ballot(peer=ME),
            worker=worker,
            stage=0,
            role=role,
            ranges=ranges_of([state.task.index for state in states]),
            attempt=1,
            shards=plan.shards_known,
            split=split.output if split is not None else None,
            split_receipt=split.pin.digest if split is not None and split.pin is not None else None,
            parts=plan.parts() if role is Role.MERGE else (),
            lease_ms=1,
            nonce=self.count,
            issued_at=0,
            not_after=0,
        )
        self.count += 1
        given = Given(unsigned(record, f"award {self.count}"), [state.task for state in states])  # type: ignore[arg-type]
        for state in states:
            state.status = TaskStatus.AWARDED
            state.tries.append(Try(given.award.digest, worker, 1))
        self.given.append(given)
        return given

    def take(self, given: Given, task: Task) -> TaskState | None:
        given.left.remove(task)
        if not given.left:
            self.given.remove(given)
        return self.plan.find(task)

    def finish(self, given: Given, task: Task, salt: int = 0, *, copied: bool = True) -> bool:
        state = self.take(given, task)
        inputs = (given.award.record.split, given.award.record.parts)
        text = f"{task.role} {task.index} {salt} {inputs}"
        output = Output(cid=text[:20], size=1, sha256=hashlib.sha256(text.encode()).digest())
        upstream = [given.award.record.split_receipt, *(part.receipt for part in given.award.record.parts)]
        record = Receipt(
            job=bytes(32),
            task=task,
            award=given.award.digest,
            attempt=1,
            worker=given.award.record.worker,
            success=True,
            output=output,
            shards=2 + salt if task.role is Role.SPLIT else 0,
            input_hash=bytes(32),
            upstream=tuple(digest for digest in upstream if digest is not None),
            started_at=0,
            issued_at=0,
        )
        self.count += 1
        opened: Opened[Receipt] = unsigned(record, f"receipt {self.count}")  # type: ignore[assignment]
        self.receipts[opened.digest] = (opened, given.award)
        counted = self.plan.succeed(opened, given.award.record)
        if counted and copied and state is not None:
            state.keepers[ME] = None
        if not counted and state is not None and state.status is TaskStatus.AWARDED and not self.elsewhere(task):
            state.status = TaskStatus.READY  # made from inputs that no longer count
        return counted

    def fail(self, given: Given, task: Task) -> None:
        state = self.take(given, task)
        if state is not None and state.status is TaskStatus.AWARDED and not self.elsewhere(task):
            self.plan.fail_try(state, "exit code 1")

    def lose(self, given: Given) -> None:
        self.given.remove(given)
        for task in given.left:
            state = self.plan.find(task)
            if state is not None and state.status is TaskStatus.AWARDED and not self.elsewhere(task):
                self.plan.lose_try(state, "nothing heard of it", counts=True)

    def elsewhere(self, task: Task) -> bool:
        return any(task in given.left for given in self.given)

    def run_to_the_end(self) -> None:
        """Everybody is honest and alive from now on."""
        for _ in range(100):
            if self.plan.failure or self.plan.final is not None:
                return
            for given in list(self.given):
                for task in list(given.left):
                    self.finish(given, task)
            for state in self.plan.ready():
                self.give([state], WORKERS[0])
        raise AssertionError("the plan got stuck")


def pinned(client: Client, state: TaskState) -> tuple[Receipt, Award]:
    assert state.pin is not None
    opened, given = client.receipts[state.pin.digest]
    return opened.record, given.record


class PlanMachine(RuleBasedStateMachine):
    """Any order of successes, failures, losses, and keepers that vanish."""

    @initialize(allow_failures=st.integers(0, 1))
    def begin(self, allow_failures: int) -> None:
        self.client = Client(stage(attempts=3, max_lost=30, allow_failures=allow_failures))
        self.plan = self.client.plan

    def runs(self) -> bool:
        """A failed job is over; its plan is of no more use."""
        return not self.plan.failure

    @precondition(lambda self: self.runs() and self.plan.ready())
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def award(self, data: st.DataObject, worker: PeerId) -> None:
        first = data.draw(st.sampled_from(self.plan.ready()))
        alike = [state for state in self.plan.ready() if state.task.role is first.task.role]
        self.client.give(alike[: data.draw(st.integers(1, len(alike)))], worker)

    @precondition(lambda self: self.runs() and self.plan.ready())
    @rule(worker=st.sampled_from(WORKERS), copied=st.booleans())
    def work_off(self, worker: PeerId, copied: bool) -> None:
        """What is ready is done at once, so that histories get as far as the merge."""
        for state in self.plan.ready():
            self.client.finish(self.client.give([state], worker), state.task, copied=copied)

    def pick(self, data: st.DataObject) -> tuple[Given, Task]:
        given = data.draw(st.sampled_from(self.client.given))
        return given, data.draw(st.sampled_from(given.left))

    @precondition(lambda self: self.runs() and self.client.given)
    @rule(data=st.data(), salt=st.sampled_from((0, 0, 0, 1)), copied=st.booleans())
    def succeed(self, data: st.DataObject, salt: int, copied: bool) -> None:
        self.client.finish(*self.pick(data), salt, copied=copied)

    @precondition(lambda self: self.runs() and self.client.given)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        self.client.fail(*self.pick(data))

    @precondition(lambda self: self.runs() and self.client.given)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.client.lose(data.draw(st.sampled_from(self.client.given)))

    @precondition(lambda self: not self.runs())
    @rule()
    def nothing_more(self) -> None:
        """Hypothesis wants something to do."""

    @precondition(lambda self: self.runs())
    @rule(peer=st.sampled_from([*WORKERS, ME]))
    def vanish(self, peer: PeerId) -> None:
        self.plan.drop_keeper(peer)

    @precondition(lambda self: self.runs())
    @rule()
    def vanish_all(self) -> None:
        for peer in [*WORKERS, ME]:
            self.plan.drop_keeper(peer)

    @precondition(lambda self: not self.plan.failure)
    @invariant()
    def pins_are_closed(self) -> None:
        """Each pinned task read exactly the outputs that are pinned for the tasks before it.

        It names the receipts that its award named: an output that gave way to another and came back has a new one.
        """
        split = self.plan.split
        assert split is not None
        for state in self.plan.shards:
            if state.pin is not None:
                receipt, award = pinned(self.client, state)
                assert receipt.task == state.task
                assert split.output is not None
                assert award.split is not None
                assert award.split.sha256 == split.output.sha256
                assert receipt.upstream == (award.split_receipt,)
        merge = self.plan.merge
        assert merge is not None
        if merge.status is TaskStatus.DONE:
            receipt, award = pinned(self.client, merge)
            assert [part.output for part in award.parts] == [state.output for state in self.plan.shards]
            assert receipt.upstream == tuple(part.receipt for part in award.parts if part.receipt is not None)

    @precondition(lambda self: not self.plan.failure)
    @invariant()
    def what_is_ready_can_read_its_inputs(self) -> None:
        assert self.plan.split is not None
        for state in self.plan.ready():
            if state.task.role is Role.SHARD:
                assert self.plan.split.keepers
            if state.task.role is Role.MERGE:
                assert all(shard.keepers for shard in self.plan.shards if shard.pin is not None)

    @precondition(lambda self: not self.plan.failure)
    @invariant()
    def a_finished_task_has_a_pin_and_the_counts_add_up(self) -> None:
        plan = self.plan
        for state in plan.tasks():
            assert state.status is not TaskStatus.DONE or state.pin is not None
        counts = {status: plan.count(status) for status in TaskStatus}
        assert sum(counts.values()) == plan.shards_known
        if plan.final is not None:
            assert counts[TaskStatus.DONE] + counts[TaskStatus.FAILED] == plan.shards_known
            assert counts[TaskStatus.FAILED] <= plan.stage.allow_failures
            assert plan.split is not None
            assert plan.split.status is TaskStatus.DONE

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.run_to_the_end()
        if hasattr(self, "client") and self.runs():
            self.a_finished_task_has_a_pin_and_the_counts_add_up()
            self.pins_are_closed()


TestAnyHistory = PlanMachine.TestCase
TestAnyHistory.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)


# -- stories --------------------------------------------------------------------------------------------------


def client_after_split(**fields: int) -> Client:
    client = Client(stage(**fields))
    (split,) = client.plan.ready()
    client.finish(client.give([split], WORKERS[0]), split.task)
    return client


def finish_shards(client: Client, worker: PeerId = WORKERS[1], *, copied: bool = True) -> None:
    states = client.plan.ready()
    given = client.give(states, worker)
    for state in states:
        client.finish(given, state.task, copied=copied)


def test_the_order_is_split_shards_merge() -> None:
    client = Client(stage())
    assert [state.task.role for state in client.plan.ready()] == [Role.SPLIT]
    client = client_after_split()
    assert [state.task for state in client.plan.ready()] == [Task(index=0), Task(index=1)]
    finish_shards(client)
    (merge,) = client.plan.ready()
    assert merge.task == Task(role=Role.MERGE)
    client.finish(client.give([merge], WORKERS[2]), merge.task)
    assert client.plan.final is merge


def test_a_stage_without_split_has_one_shard_and_without_merge_its_output_is_final() -> None:
    client = Client(stage(split="", merge=""))
    (only,) = client.plan.ready()
    assert only.task == Task(index=0)
    client.finish(client.give([only], WORKERS[0]), only.task)
    assert client.plan.final is only


def test_a_second_success_changes_nothing() -> None:
    client = client_after_split()
    state = client.plan.shards[0]
    one, two = client.give([state], WORKERS[0]), client.give([state], WORKERS[1])
    assert client.finish(one, state.task)
    pin = state.pin
    assert not client.finish(two, state.task, salt=1)
    assert state.pin is pin


def test_whoever_made_the_same_output_keeps_it_too() -> None:
    client = client_after_split()
    state = client.plan.shards[0]
    tries = [client.give([state], worker) for worker in WORKERS]
    assert client.finish(tries[0], state.task, copied=False)
    assert not client.finish(tries[1], state.task)
    assert not client.finish(tries[2], state.task, salt=1)
    assert list(state.keepers) == [WORKERS[0], WORKERS[1]]


def test_an_output_made_again_with_the_same_hash_keeps_its_receipt() -> None:
    client = client_after_split()
    finish_shards(client, copied=False)
    pins = [state.pin for state in client.plan.shards]
    assert [state.task.index for state in client.plan.drop_keeper(WORKERS[1])] == [0, 1]
    finish_shards(client, WORKERS[2])
    assert [state.pin for state in client.plan.shards] == pins
    assert [list(state.keepers) for state in client.plan.shards] == [[WORKERS[2], ME]] * 2


def test_a_lost_split_is_made_again_before_its_shards() -> None:
    client = client_after_split()
    client.plan.drop_keeper(ME)
    client.plan.drop_keeper(WORKERS[0])
    assert [state.task.role for state in client.plan.ready()] == [Role.SPLIT]


def test_a_split_that_made_something_else_voids_the_shards_of_the_old_one() -> None:
    client = client_after_split()
    finish_shards(client)
    assert client.plan.split is not None
    client.plan.lose_output(client.plan.split)
    again = client.give([client.plan.split], WORKERS[0])
    client.finish(again, client.plan.split.task, salt=1)
    assert client.plan.shards_known == 3
    assert [state.pin for state in client.plan.shards] == [None] * 3


@pytest.mark.parametrize("role", [Role.SHARD, Role.MERGE])
def test_a_success_over_inputs_that_no_longer_count_is_void(role: Role) -> None:
    client = client_after_split()
    assert client.plan.split is not None
    if role is Role.MERGE:
        finish_shards(client)
    (state, *_) = client.plan.ready()
    assert state.task.role is role
    given = client.give([state], WORKERS[2])
    client.plan.lose_output(client.plan.split)
    client.finish(client.give([client.plan.split], WORKERS[0]), client.plan.split.task, salt=1)
    assert not client.finish(given, state.task)
    client.run_to_the_end()


def test_a_failed_shard_stays_failed_while_its_merge_runs() -> None:
    """A late success of another try would leave the merge over inputs that no longer count."""
    client = client_after_split(attempts=1, allow_failures=1)
    slow = client.give([client.plan.shards[0]], WORKERS[0])
    client.lose(slow)
    client.fail(client.give([client.plan.shards[0]], WORKERS[1]), Task(index=0))
    finish_shards(client)
    (merge,) = client.plan.ready()
    given = client.give([merge], WORKERS[2])
    client.given.append(slow)
    client.finish(slow, Task(index=0))
    client.finish(given, merge.task)
    assert client.plan.final is merge


def test_shards_that_are_lost_while_the_merge_ends_count_as_what_they_were() -> None:
    client = client_after_split()
    finish_shards(client, copied=False)
    (merge,) = client.plan.ready()
    given = client.give([merge], WORKERS[2])
    client.plan.drop_keeper(WORKERS[1])
    assert client.finish(given, merge.task)
    assert client.plan.count(TaskStatus.DONE) == 2


def test_a_merge_that_is_lost_together_with_its_inputs_makes_them_again() -> None:
    client = client_after_split()
    finish_shards(client, copied=False)
    (merge,) = client.plan.ready()
    client.finish(client.give([merge], WORKERS[1]), merge.task, copied=False)
    client.plan.drop_keeper(WORKERS[1])
    assert {state.task.role for state in client.plan.ready()} == {Role.SHARD}
    client.run_to_the_end()


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_the_job_fails_with_one_failure_more_than_allowed(allowed: int) -> None:
    client = client_after_split(attempts=1, allow_failures=allowed)
    for index in range(2):
        client.fail(client.give([client.plan.shards[index]], WORKERS[0]), Task(index=index))
        expected = f"shard {index} failed: exit code 1" if index == allowed else ""
        assert (client.plan.failure == expected) or index > allowed


def test_attempts_and_losses_are_counted_apart() -> None:
    client = client_after_split(attempts=2, max_lost=3)
    state = client.plan.shards[0]
    for _ in range(2):
        client.lose(client.give([state], WORKERS[0]))
    client.fail(client.give([state], WORKERS[0]), state.task)
    assert state.status is TaskStatus.READY
    client.lose(client.give([state], WORKERS[0]))
    assert client.plan.count(TaskStatus.FAILED) == 1
    assert client.plan.failure == "", "one failed shard is allowed"


def test_a_try_that_never_began_counts_as_nothing() -> None:
    client = client_after_split(max_lost=1)
    state = client.plan.shards[0]
    client.plan.lose_try(state, "declined", counts=False)
    assert (state.losses, state.status) == (0, TaskStatus.READY)


# -- successes that cannot be one -----------------------------------------------------------------------------


def test_flaws() -> None:
    assert flaw_in(receipt().record, stage()) is None
    assert flaw_in(receipt(output=None).record, stage()) == "a success without an output"
    assert flaw_in(failed_receipt(award(), "exit code 1").record, stage()) == "exit code 1"
    assert flaw_in(failed_receipt(award(), "").record, stage()) == "failed without a reason"
    split = split_award()
    assert flaw_in(receipt(split, shards=16, output=output_of("x")).record, stage()) is None
    for shards in (0, 17):
        flaw = flaw_in(receipt(split, shards=shards).record, stage())
        assert flaw == f"split into {shards} shards where 1 to 16 are allowed"
