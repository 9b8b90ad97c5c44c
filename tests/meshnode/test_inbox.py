"""The way to the peer is bounded, and every client gets its own answer or a clear no."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.inbox import EVENTS_MAX, Inbox, NotAnswered
from protocol.events import ProposalAsked, WakeupReached
from protocol.messages import CancelReply


@pytest.mark.trio
async def test_each_client_gets_the_answer_to_its_own_request() -> None:
    inbox, answers = Inbox(), dict[str, str]()

    async def ask(name: str) -> None:
        answer = await inbox.ask(lambda number: ProposalAsked(number, 1), 5)
        assert isinstance(answer, CancelReply)
        answers[name] = answer.status

    async with trio.open_nursery() as nursery:
        numbers = []
        for name in ("first", "second"):
            nursery.start_soon(ask, name)
            event = await inbox.receive()
            assert isinstance(event, ProposalAsked)
            numbers.append(event.request)
        for number, status in zip(reversed(numbers), ("to second", "to first"), strict=True):
            inbox.answer(number, CancelReply(number=0, status=status))
    assert answers == {"first": "to first", "second": "to second"}


@pytest.mark.trio
async def test_no_answer_in_time_is_said_and_a_late_one_is_harmless(autojump_clock: MockClock) -> None:
    inbox = Inbox()
    with pytest.raises(NotAnswered, match="30 s"):
        await inbox.ask(lambda number: ProposalAsked(number, 1), 30)
    event = await inbox.receive()
    assert isinstance(event, ProposalAsked)
    inbox.answer(event.request, CancelReply(number=0, status="late"))


@pytest.mark.trio
async def test_a_full_inbox_makes_the_sender_wait() -> None:
    inbox = Inbox()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await inbox.post(WakeupReached())
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        await wait_all_tasks_blocked()
        assert sent == EVENTS_MAX
        await inbox.receive()
        await wait_all_tasks_blocked()
        assert sent == EVENTS_MAX + 1
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_what_waits_can_be_taken_at_once_up_to_a_bound() -> None:
    inbox = Inbox()
    waiting = [ProposalAsked(number, 1) for number in range(5)]
    for event in waiting:
        await inbox.post(event)
    assert await inbox.receive() == waiting[0]
    assert inbox.take_waiting(3) == waiting[1:4]
    assert inbox.take_waiting(3) == waiting[4:]
    assert inbox.take_waiting(3) == []
