"""Facts in any order, as often as one likes: they come to the same. And ends that nobody may vote for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.chain import Chain
from protocol.decrees import Entry, FinalBody
from protocol.ending import flaw_of
from protocol.errors import RemoteProtocolError
from protocol.facts import (
    Accepted,
    AnyFact,
    Cancelled,
    Copied,
    Counted,
    Ended,
    Gave,
    Kept,
    Pinned,
    in_portions,
    key_of,
    size_of,
)
from protocol.job_record import JobRecord
from protocol.known_facts import KnownFacts
from protocol.limits import FACTS_BYTES_MAX, FACTS_PER_MESSAGE_MAX, FRAME_BYTES_MAX, Limits
from protocol.messages import Renew, Renewal, encode_message
from protocol.plan import TaskStatus
from protocol.records import Vote
from protocol.replay import rebuild
from protocol.wire import Ballot, Role, Task
from tests.protocol.lone import context_of
from tests.protocol.mesh import signer
from tests.protocol.record_story import HOLDERS, Story
from tests.protocol.samples import (
    award,
    cancel,
    digest_of,
    every_fact,
    failed_receipt,
    forged,
    held,
    output_of,
    receipt,
    spec,
    split_award,
)

JOB = spec()
CONTEXT = context_of("bob")


def known() -> KnownFacts:
    return KnownFacts(CONTEXT, JOB, Chain(JOB, partial(CONTEXT.open, kind=Vote)))


def add_all(facts: list[AnyFact]) -> KnownFacts:
    """As often as it takes: what rests on a fact that is still to come is of no use before."""
    result = known()
    for _ in range(4):
        for fact in facts:
            result.add(fact)
    return result


def good_facts() -> tuple[AnyFact, ...]:
    split = split_award(JOB)
    split_done = receipt(split, output=output_of("split"))
    given, again = award(JOB, split_receipt=split_done.digest), award(JOB, worker="cat", nonce=8)
    done = receipt(given)
    late = receipt(again, worker="cat")
    failure = failed_receipt(given, "exit code 1", task=Task(index=2))
    ballots = [Ballot(peer=signer("ann").peer_id), Ballot(epoch=3, peer=signer("cat").peer_id)]
    return (
        *(Gave(award=one.signed) for one in (split, given, again)),
        *(Counted(receipt=one.signed) for one in (split_done, done, late, failure)),
        Ended(award=again.digest, outcome="lost", reason="nothing heard of it", counts=True),
        *(Pinned(task=done.record.task, receipt=one.digest, ballot=ballots[0], number=0) for one in (done, late)),
        Pinned(task=done.record.task, receipt=late.digest, ballot=ballots[1], number=0),
        Pinned(task=done.record.task, receipt=done.digest, ballot=ballots[1], number=1),
        Copied(receipt=done.digest, peer=signer("ann").peer_id),
        Copied(receipt=done.digest, peer=signer("dan").peer_id),
        Kept(held=held(JOB).signed),
        Accepted(copies=2, pointers=3),
        Cancelled(cancel=cancel(JOB).signed),
        Cancelled(cancel=spec(alias="next", supersedes=JOB.digest).signed),
    )


GOOD = good_facts()


def bad_facts() -> tuple[AnyFact, ...]:
    other = spec(alias="other")
    given = award(JOB)
    return (
        Gave(award=award(other).signed),
        Gave(award=award(JOB, steward="eve").signed),
        Gave(award=award(JOB, ballot=Ballot(peer=signer("bob").peer_id)).signed),
        Gave(award=award(JOB, stage=1).signed),
        Gave(award=forged(given.signed)),
        Gave(award=cancel(JOB).signed),
        Counted(receipt=receipt(given, worker="eve").signed),
        Counted(receipt=receipt(given, task=Task(index=1)).signed),
        Counted(receipt=receipt(given, job=other.digest).signed),
        Counted(receipt=receipt(award(other)).signed),
        Counted(receipt=forged(receipt(given).signed)),
        Kept(held=held(other).signed),
        Cancelled(cancel=cancel(other).signed),
        Cancelled(cancel=cancel(JOB, submitter="eve").signed),
        Cancelled(cancel=spec(alias="next", submitter="eve", supersedes=JOB.digest).signed),
        Cancelled(cancel=spec(alias="next").signed),
        Ended(award=digest_of("no award"), outcome="lost", reason="", counts=True),
        Copied(receipt=digest_of("no receipt"), peer=signer("cat").peer_id),
    )


# -- any order ------------------------------------------------------------------------------------------------


@given(st.permutations(GOOD), st.lists(st.sampled_from(GOOD), max_size=8))
def test_facts_in_any_order_and_any_number_come_to_the_same(facts: list[AnyFact], again: list[AnyFact]) -> None:
    one, other = add_all(list(GOOD)), add_all([*again, *facts, *again])
    assert set(one.keys) == set(other.keys)
    assert (one.mark, one.bytes, len(one)) == (other.mark, other.bytes, len(other))
    assert (one.pins, set(one.awards), set(one.receipts)) == (other.pins, set(other.awards), set(other.receipts))
    assert {receipt: set(peers) for receipt, peers in one.copies.items()} == {
        receipt: set(peers) for receipt, peers in other.copies.items()
    }
    assert other.cancelled


@settings(max_examples=200)
@given(st.lists(st.sampled_from((*GOOD, *bad_facts(), *every_fact())), max_size=40))
def test_whatever_is_said_is_taken_in_or_refused(facts: list[AnyFact]) -> None:
    result = known()
    for fact in facts:
        before = (result.mark, len(result), result.bytes)
        try:
            added = result.add(fact)
        except RemoteProtocolError:
            added = None
        assert (added is not None) == (
            key_of(fact) in result.keys and (result.mark, len(result), result.bytes) != before
        )
    assert len(set(result.keys)) == len(result)
    rest = known()
    for fact in result:
        rest.add(fact)
    assert rest.mark == result.mark, "what one holder has learnt another can learn in the same order"


@pytest.mark.parametrize("bad", bad_facts(), ids=lambda fact: type(fact).__name__)
def test_what_is_not_what_it_says_changes_nothing(bad: AnyFact) -> None:
    result = add_all(list(GOOD))
    before = (result.mark, len(result))
    refused = False
    try:
        refused = result.add(bad) is None
    except RemoteProtocolError:
        refused = True
    assert refused
    assert (result.mark, len(result)) == before


def test_tries_without_number_are_bounded_and_those_that_came_to_something_stay() -> None:
    context = context_of("bob", limits=Limits(awards_per_job_max=400))
    result = KnownFacts(context, JOB, Chain(JOB, partial(context.open, kind=Vote)))
    first = award(JOB)
    result.add(Gave(award=first.signed))
    result.add(Counted(receipt=receipt(first).signed))
    for number in range(500):
        vain = award(JOB, nonce=100 + number)
        replaced = result.add(Gave(award=vain.signed))
        assert replaced is not None
        result.add(Ended(award=vain.digest, outcome="lost", reason="", counts=True))
    assert len(result.awards) <= 401
    assert first.digest in result.awards


@given(st.lists(st.sampled_from(GOOD), max_size=30), st.integers(1, 20))
def test_portions_hold_all_facts_in_order_and_each_fits(facts: list[AnyFact], times: int) -> None:
    whole = facts * times
    portions = list(in_portions(whole))
    assert [fact for portion in portions for fact in portion] == whole
    for portion in portions:
        assert 0 < len(portion) <= FACTS_PER_MESSAGE_MAX
        assert sum(size_of(fact) for fact in portion) <= FACTS_BYTES_MAX
        assert len(encode_message(Renew(renewals=(renewal_of(portion),)))) < FRAME_BYTES_MAX


def renewal_of(facts: tuple[AnyFact, ...]) -> Renewal:
    return Renewal(job=JOB.digest, ballot=JOB_BALLOT, progress=0, facts=facts)


JOB_BALLOT = Ballot(peer=signer("ann").peer_id)


# -- a job made again from its facts ------------------------------------------------------------------------------


@cache
def lives() -> tuple[tuple[Story, dict[Task, tuple[str, bytes | None]]], ...]:
    """Jobs at different moments: under way, with a lost worker, done; and what their steward knew of each task."""
    stories = []
    for moment, lost in ((0.1, ""), (0.35, ""), (0.65, "dan"), (0.7, ""), (1.0, "eve")):
        story = Story(*HOLDERS, "dan", "eve", attempts=100)
        story.mesh.fail_task[Task(index=3)] = "no stars"
        story.mesh.run_for(moment)
        story.mesh.fail_task.clear()
        story.mesh.run_for(0.35)
        if lost:
            story.mesh.kill(lost)
            story.mesh.run_for(0.05)
        job = story.mesh.peers[story.mesh.ids["ann"]]._steward.find(story.spec.digest)
        assert job is not None
        live = {
            state.task: (str(state.status), state.pin.digest if state.pin is not None else None)
            for state in job.plan.tasks()
        }
        stories.append((story, live))
    return tuple(stories)


@settings(max_examples=60)
@given(st.data())
def test_a_job_made_again_from_shuffled_facts_has_the_same_finished_tasks(data: st.DataObject) -> None:
    story, live = data.draw(st.sampled_from(lives()))
    record = story.records()["ann"]
    facts = data.draw(st.permutations(list(record.facts)))
    context = context_of("bob")
    again = JobRecord.create(context, story.spec)
    for _ in range(4):
        for fact in facts:
            again.learn(fact)
    assert again.facts.mark == record.facts.mark
    job = rebuild(context, again, record.promised)
    made = {
        state.task: (str(state.status), state.pin.digest if state.pin is not None else None)
        for state in job.plan.tasks()
    }
    done = (TaskStatus.DONE, TaskStatus.FAILED)
    assert {task: one for task, one in made.items() if one[0] in done} == {
        task: one for task, one in live.items() if one[0] in done
    }


# -- ends that cannot be --------------------------------------------------------------------------------------------


@cache
def ended() -> tuple[JobRecord, FinalBody]:
    story = Story(*HOLDERS, "dan")
    body = story.wait_for_end()
    return story.records()["bob"], body


def test_the_true_end_has_no_flaw() -> None:
    record, body = ended()
    assert body.status == "success"
    assert flaw_of(body, record.spec, record.facts) is None


def _without_one(entries: list[Entry], data: Any) -> list[Entry]:
    del entries[data.draw(st.integers(0, len(entries) - 1))]
    return entries


def _twice(entries: list[Entry], data: Any) -> list[Entry]:
    return [*entries, data.draw(st.sampled_from(entries))]


def _failed(entries: list[Entry], data: Any) -> list[Entry]:
    number = data.draw(st.integers(0, len(entries) - 1))
    entries[number] = Entry(task=entries[number].task)
    return entries


def _swapped(entries: list[Entry], data: Any) -> list[Entry]:
    one, other = data.draw(st.lists(st.integers(0, len(entries) - 1), min_size=2, max_size=2, unique=True))
    entries[one], entries[other] = (
        Entry(task=entries[one].task, receipt=entries[other].receipt),
        Entry(task=entries[other].task, receipt=entries[one].receipt),
    )
    return entries


def _unknown(entries: list[Entry], data: Any) -> list[Entry]:
    number = data.draw(st.integers(0, len(entries) - 1))
    receipt_ = data.draw(st.binary(min_size=32, max_size=32))
    entries[number] = Entry(task=entries[number].task, receipt=receipt_)
    return entries


def _of_a_task_that_is_not_there(entries: list[Entry], data: Any) -> list[Entry]:
    number = data.draw(st.integers(0, len(entries) - 1))
    task = data.draw(
        st.builds(Task, stage=st.integers(0, 3), role=st.sampled_from(Role), index=st.integers(12, 1 << 20))
    )
    entries[number] = Entry(task=task, receipt=entries[number].receipt)
    return entries


ENTRIES: tuple[Callable[[list[Entry], Any], list[Entry]], ...] = (
    _without_one,
    _twice,
    _failed,
    _swapped,
    _unknown,
    _of_a_task_that_is_not_there,
)


@settings(max_examples=200)
@given(st.data())
def test_an_end_with_any_one_thing_changed_cannot_be(data: st.DataObject) -> None:
    """But for the times and the keepers, which are one holder's word."""
    record, body = ended()
    output = body.output
    assert output is not None
    change: Any = data.draw(
        st.sampled_from(
            [
                {"job": digest_of("another")},
                {"status": "failed"},
                {"status": "cancelled"},
                {"status": "running"},
                {"status": ""},
                {"output": None},
                {"output": output_of("another")},
                {"output": msgspec.structs.replace(output, size=output.size + 1)},
                {"output": msgspec.structs.replace(output, cid="another")},
                {"output": msgspec.structs.replace(output, sha256=digest_of("another"))},
                *ENTRIES,
                "total_shards",
                "succeeded",
                "failed",
            ]
        )
    )
    if isinstance(change, str):
        number = data.draw(st.integers(0, 1 << 20).filter(lambda number: number != getattr(body, change)))
        changed = msgspec.structs.replace(body, **{change: number})
    elif isinstance(change, dict):
        changed = msgspec.structs.replace(body, **change)
    else:
        changed = msgspec.structs.replace(body, entries=tuple(change(list(body.entries), data)))
    assert flaw_of(changed, record.spec, record.facts) is not None
