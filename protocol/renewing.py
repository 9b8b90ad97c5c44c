"""What a steward sends the other holders of its jobs: that it is at work, and the facts that they do not know yet."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.clock import after_ms
from protocol.context import Context
from protocol.facts import AnyFact, size_of
from protocol.identity import PeerId
from protocol.lead import Lead, Member
from protocol.limits import FACTS_BYTES_MAX, FACTS_PER_MESSAGE_MAX, RENEWALS_MAX
from protocol.messages import Renew, Renewal
from protocol.timers import Timer


class Renewing:
    """Batches renewals by receiver. A fact is sent until it is acknowledged, but not while it may be on its way."""

    def __init__(self, context: Context, leads: Mapping[bytes, Lead]) -> None:
        self._context = context
        self._leads = leads
        self._flush: Timer | None = None

    def soon(self) -> None:
        """New facts are sent together, a moment after the first of them."""
        if self._flush is None or not self._flush.pending:
            self._flush = self._context.after(self._context.limits.facts_flush_ms, self._send_owed)

    def _send_owed(self) -> None:
        now = self._context.now
        owing = [lead for lead in self._leads.values() if any(one.owed for one in lead.members.values())]
        self.send([lead for lead in owing if lead.closing_since is not None or not lead.is_deaf(now)])

    def send(self, leads: list[Lead]) -> None:
        """One message, or few, to each of the other holders, for all jobs together."""
        batches: dict[PeerId, list[Renewal]] = {}
        room: dict[PeerId, int] = {}
        for lead in leads:
            for peer, member in lead.members.items():
                if member.closed or (not lead.proposer.owns and not member.promised):
                    continue
                batch = batches.setdefault(peer, [])
                facts = self._next_owed(lead, member, room.setdefault(peer, FACTS_BYTES_MAX), bool(batch))
                room[peer] -= sum(size_of(fact) for fact in facts)
                batch.append(
                    Renewal(
                        job=lead.record.job,
                        ballot=lead.ballot,
                        progress=lead.progress,
                        idle=lead.idle,
                        facts=tuple(facts),
                    )
                )
        for peer, batch in batches.items():
            for start in range(0, len(batch), RENEWALS_MAX):
                self._context.send(peer, Renew(renewals=tuple(batch[start : start + RENEWALS_MAX])))

    def _next_owed(self, lead: Lead, member: Member, room: int, others: bool) -> list[AnyFact]:
        """The facts that are sent now: not those that are probably on their way."""
        now = self._context.now
        facts: list[AnyFact] = []
        for key, sent_at in list(member.owed.items()):
            if sent_at is not None and after_ms(sent_at, 2 * self._context.limits.renew_interval_ms) > now:
                continue
            fact = lead.record.facts.get(key)
            if fact is None:
                del member.owed[key]  # another one has taken its place
                continue
            room -= size_of(fact)
            if (room < 0 and (facts or others)) or len(facts) >= FACTS_PER_MESSAGE_MAX:
                self.soon()
                break
            member.owed[key] = now
            facts.append(fact)
        return facts
