"""The way to the peer: a bounded channel of events, and clients who wait for the reply to theirs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from protocol.effects import Proposal
from protocol.events import Event
from protocol.messages import Message

EVENTS_MAX = 1024
"""When so many wait, whoever brings the next one waits too: a fast remote, not this node's memory, pays."""


class NotAnswered(Exception):
    """The mesh gave no answer in the time that the client wanted to wait."""


class Inbox:
    """Events on their way to the one task that owns the peer."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Event](EVENTS_MAX)
        self._waiting: dict[int, _Request] = {}
        self._last_request = 0

    async def post(self, event: Event) -> None:
        """Bring an event, waiting while the inbox is full."""
        await self._send.send(event)

    async def receive(self) -> Event:
        """The next event."""
        return await self._receive.receive()

    def take_waiting(self, at_most: int) -> list[Event]:
        """The events that are here already, in order."""
        taken: list[Event] = []
        with suppress(trio.WouldBlock):
            while len(taken) < at_most:
                taken.append(self._receive.receive_nowait())
        return taken

    async def ask(self, make_event: Callable[[int], Event], timeout_s: float) -> Message | Proposal:
        """Bring a client's request, made by ``make_event`` from its number, and wait for the reply.

        Raises NotAnswered.
        """
        self._last_request += 1
        number = self._last_request
        request = self._waiting[number] = _Request()
        try:
            with trio.move_on_after(timeout_s):
                await self._send.send(make_event(number))
                await request.done.wait()
        finally:
            del self._waiting[number]
        if request.answer is None:
            raise NotAnswered(f"no answer from the mesh within {timeout_s:g} s")
        return request.answer

    def answer(self, number: int, answer: Message | Proposal) -> None:
        """Give the reply to whoever asked; nothing happens if they have gone."""
        if (request := self._waiting.get(number)) is not None:
            request.answer = answer
            request.done.set()


class _Request:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Message | Proposal | None = None
