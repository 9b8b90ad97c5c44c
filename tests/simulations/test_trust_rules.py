"""Rules about the word of others, each shown to fail on a planted violation."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from protocol.effects import CloseLink, Effect, Record, Send, StopRun
from protocol.events import MessageReceived
from protocol.messages import Ack, Announce, Bid, Receipts, ReceiptsAck, WhoLeads
from protocol.records import Announcement
from protocol.signing import Opened, sign
from protocol.wire import Ballot, Needs, Role, Task
from simulations.machines import Machine
from tests.simulations.fakes import do, peer_of, run_ms
from tests.simulations.test_checkers import Story, broken


@pytest.fixture
def story() -> Story:
    return Story()


def announcement(story: Story) -> Opened[Announcement]:
    steward = story.steward.peer_id
    return sign(
        Announcement(
            job=story.spec.digest,
            stage=0,
            round=0,
            steward=steward,
            ballot=Ballot(peer=steward),
            needs=Needs(),
            tasks=1,
            task_timeout_ms=1,
            submitter=story.spec.record.submitter,
            model="m",
            bid_threshold=1,
            refusal_threshold=1,
            issued_at=0,
            not_after=1 << 50,
        ),
        story.steward.signer,
    )


def announces(story: Story, machine: Machine, to: Machine, hops: int) -> None:
    signed = announcement(story).signed
    do(story.world, machine, Send(to.peer_id, Announce(announcement=signed, steward=signed, hops=hops)))


def test_an_announcement_is_passed_on_once_to_each(story: Story) -> None:
    announces(story, story.worker, story.other, 1)
    announces(story, story.worker, story.steward, 1)
    with broken("announcements", "twice"):
        announces(story, story.worker, story.other, 1)


def test_its_steward_may_repeat_it_and_so_may_the_next_boot(story: Story) -> None:
    for _ in range(2):
        announces(story, story.steward, story.other, 1)
    announces(story, story.worker, story.other, 1)
    story.world.machines.crash(story.worker)
    story.world.machines.start(story.worker)
    announces(story, story.worker, story.other, 1)


@pytest.mark.parametrize(("came", "went", "good"), [(2, 1, True), (2, 2, False), (0, 0, False)])
def test_it_goes_no_further_than_it_may(story: Story, came: int, went: int, good: bool) -> None:
    signed = announcement(story).signed
    story.hears(Announce(announcement=signed, steward=signed, hops=came))
    if good:
        announces(story, story.worker, story.other, went)
    else:
        with broken("announcements", "further"):
            announces(story, story.worker, story.other, went)


def is_lied_to(story: Story, message: Any, *effects: Effect) -> None:
    peer_of(story.worker).script = list(effects)
    story.world.feed(story.worker, MessageReceived(story.other.peer_id, message), is_lie=True)


@pytest.mark.parametrize("effect", [StopRun(1), Record("lease", b"key", None), Record("receipt", b"key", None)])
def test_a_lie_that_moves_work_is_caught(story: Story, effect: Effect) -> None:
    with broken("lies", "WhoLeads of a liar"):
        is_lied_to(story, WhoLeads(job=story.spec.digest), effect)


def test_a_lie_that_is_shrugged_off_is_not(story: Story) -> None:
    is_lied_to(story, WhoLeads(job=story.spec.digest), Send(story.other.peer_id, Ack(number=1, wall_ms=0)))
    is_lied_to(story, Receipts(job=story.spec.digest, receipts=()), StopRun(1))
    story.accepts(story.awards[Role.SHARD])
    is_lied_to(story, WhoLeads(job=story.spec.digest))
    story.runs()


def test_a_false_bid_may_be_the_last_that_was_waited_for_but_ends_nothing(story: Story) -> None:
    signed = announcement(story).signed
    bid = Bid(
        announcement=bytes(32), job=story.spec.digest, stage=0, slots=1, start_in_ms=0, task_ms=1, capability=signed
    )
    is_lied_to(story, bid, Record("lease", b"key", b"row"))
    for effect in (StopRun(1), Record("lease", b"key", None)):
        with broken("lies", "by the Bid of a liar"):
            is_lied_to(story, bid, effect)


def test_one_lie_too_many_brings_the_liars_work_here_and_no_more(story: Story) -> None:
    story.accepts(story.awards[Role.SHARD])
    peer_of(story.worker).banned.add(story.other.peer_id)
    cut, lease = CloseLink(story.other.peer_id), Record("lease", b"key", b"row")
    is_lied_to(story, WhoLeads(job=story.spec.digest), lease, cut)
    with broken("lies", "StopRun by the WhoLeads of a liar"):
        is_lied_to(story, WhoLeads(job=story.spec.digest), StopRun(1), cut)
    with broken("lies", "Record by the WhoLeads of a liar"):
        is_lied_to(story, WhoLeads(job=story.spec.digest), lease)


def delivers(story: Story) -> None:
    receipts = Receipts(job=story.spec.digest, receipts=(story.receipts[Task()].signed,))
    do(story.world, story.worker, Send(story.steward.peer_id, receipts))
    run_ms(story.world, 1)


def test_what_was_acknowledged_is_not_delivered_again(story: Story) -> None:
    story.says()
    delivers(story)
    acknowledgement = ReceiptsAck(receipts=(story.receipts[Task()].digest,))
    story.hears(acknowledgement, story.other)
    delivers(story)
    story.hears(acknowledgement)
    with broken("acknowledgements"):
        delivers(story)


def test_the_word_of_a_banned_peer_is_no_acknowledgement(story: Story) -> None:
    story.says()
    delivers(story)
    peer_of(story.worker).banned.add(story.steward.peer_id)
    story.hears(ReceiptsAck(receipts=(story.receipts[Task()].digest,)))
    peer_of(story.worker).banned.clear()
    delivers(story)


def test_unless_it_is_asked_for_anew(story: Story) -> None:
    story.says()
    delivers(story)
    story.hears(ReceiptsAck(receipts=(story.receipts[Task()].digest,)))
    story.accepts(story.awards[Role.SHARD])
    delivers(story)


def test_more_neighbours_than_a_view_holds_are_caught(story: Story) -> None:
    limits = replace(story.world.options.limits)
    peer_of(story.worker).view.neighbours = tuple(str(number) for number in range(limits.active_view_max + 1))
    with broken("tables", "neighbours"):
        story.world.checkers.tables.check(story.worker)
