"""The facts about one job at one holder, in the order in which it learnt them.

Signed facts are checked when they are added: an award by a holder of the job, a receipt by the worker of a known
award that covers it. Lists, texts and numbers are bounded, so a lying peer can cost work, not memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from protocol.chain import Chain
from protocol.context import Context
from protocol.errors import RemoteProtocolError
from protocol.facts import Accepted, AnyFact, Cancelled, Copied, Counted, Ended, Gave, Kept, Pinned, key_of, size_of
from protocol.identity import PeerId
from protocol.lease import covers, well_formed
from protocol.limits import FACTS_MAX, RECEIPT_BYTES_MAX
from protocol.records import Award, Cancel, Held, JobSpec, Receipt
from protocol.signing import Opened, Signed
from protocol.wire import FactKey, Task

LATE_RECEIPTS_MAX = 8
"""Receipts kept of one task beyond those that its attempts allow."""


class KnownFacts:
    """Grows by ``add`` only."""

    def __init__(self, context: Context, spec: Opened[JobSpec], chain: Chain) -> None:
        self._context = context
        self._spec = spec
        self._chain = chain
        self._all: dict[FactKey, AnyFact] = {}
        self._receipts_of: dict[Task, int] = {}
        self._successes_of: dict[Task, int] = {}
        #: Of all facts together, whatever their order: equal at two holders that know the same.
        self.mark = 0
        self.bytes = 0
        self.awards: dict[bytes, Opened[Award]] = {}
        self.receipts: dict[bytes, Opened[Receipt]] = {}
        self.ended: dict[bytes, Ended] = {}
        self.pins: dict[Task, Pinned] = {}
        #: Who has the job's model and inputs, by their own word.
        self.held: dict[PeerId, Opened[Held]] = {}
        #: Who has the output of a receipt, besides its worker.
        self.copies: dict[bytes, dict[PeerId, None]] = {}
        self.cancelled = False
        self.accepted: Accepted | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[AnyFact]:
        """In the order in which they were learnt."""
        return iter(self._all.values())

    def __contains__(self, key: FactKey) -> bool:
        return key in self._all

    @property
    def keys(self) -> tuple[FactKey, ...]:
        return tuple(self._all)

    def items(self) -> Iterable[tuple[FactKey, AnyFact]]:
        """As iterating, with their keys."""
        return self._all.items()

    def get(self, key: FactKey) -> AnyFact | None:
        return self._all.get(key)

    def successes_of(self, task: Task) -> int:
        """How many receipts say that a task succeeded."""
        return self._successes_of.get(task, 0)

    def add(self, fact: AnyFact) -> list[AnyFact] | None:
        """Take in a fact; the facts that it replaces, or None if it says nothing new.

        Raises RemoteProtocolError for a signed one that is not what it is said to be.
        """
        key = key_of(fact)
        if key in self._all or len(self._all) >= FACTS_MAX or not self._take(fact):
            return None
        replaced = self._replaced_by(fact)
        for old in replaced:
            self._drop(old)
        self._all[key] = fact
        self._weigh(key, fact, 1)
        return replaced

    def _take(self, fact: AnyFact) -> bool:
        """Check a fact and put it where it is looked for; False if it is of no use."""
        match fact:
            case Gave(award=signed):
                award = self._context.open(signed, Award)
                self._check_award(award.record)
                self.awards[award.digest] = award
            case Counted(receipt=signed):
                return self._take_receipt(signed)
            case Kept(held=signed):
                held = self._context.open(signed, Held)
                if held.record.job != self._spec.digest:
                    raise RemoteProtocolError("a promise for another job")
                self.held[held.record.peer] = held
            case Cancelled(cancel=signed):
                self._check_cancel(signed)
                self.cancelled = True
            case Ended():
                known_end = self.ended.get(fact.award)
                return fact.award in self.awards and (known_end is None or key_of(fact) < key_of(known_end))
            case Pinned():
                known = self.pins.get(fact.task)
                return known is None or (known.ballot, known.number) < (fact.ballot, fact.number)
            case Copied():
                if fact.receipt not in self.receipts:
                    return False
                self.copies.setdefault(fact.receipt, {})[fact.peer] = None
            case Accepted():
                return self.accepted is None or key_of(fact) < key_of(self.accepted)
        return True

    def _take_receipt(self, signed: Signed) -> bool:
        if len(signed.payload) > RECEIPT_BYTES_MAX:
            raise RemoteProtocolError(f"a receipt of {len(signed.payload)} bytes")
        receipt = self._context.open(signed, Receipt)
        record = receipt.record
        award = self.awards.get(record.award)
        if award is None:
            return False
        if record.job != self._spec.digest or record.worker != award.record.worker:
            raise RemoteProtocolError("a receipt of another job, or by another worker than its award's")
        if not covers(award.record, record.task):
            raise RemoteProtocolError("a receipt that its award does not cover")
        known = self._receipts_of.get(record.task, 0)
        if known >= LATE_RECEIPTS_MAX + self._spec.record.stages[record.task.stage].attempts:
            return False
        self._receipts_of[record.task] = known + 1
        self._successes_of[record.task] = self._successes_of.get(record.task, 0) + record.success
        self.receipts[receipt.digest] = receipt
        return True

    def _check_award(self, award: Award) -> None:
        stages = self._spec.record.stages
        if award.job != self._spec.digest or not self._chain.has_held(award.steward):
            raise RemoteProtocolError("an award of another job, or by a peer that does not hold it")
        if award.ballot.peer != award.steward:
            raise RemoteProtocolError("an award under another steward's ballot")
        if award.stage >= len(stages) or not well_formed(award, stages[award.stage]):
            raise RemoteProtocolError("an award of tasks that the job does not have")

    def _check_cancel(self, signed: Signed) -> None:
        opened = self._context.open_any(signed)
        match opened.record:
            case Cancel(job=job, submitter=submitter) | JobSpec(supersedes=job, submitter=submitter):
                if (job, submitter) == (self._spec.digest, self._spec.record.submitter):
                    return
        raise RemoteProtocolError("no cancel of this job by its submitter")

    def _replaced_by(self, fact: AnyFact) -> list[AnyFact]:
        """An older pin; of two stewards' words the other; of too many awards the oldest that nothing came of."""
        old: AnyFact | None
        match fact:
            case Ended():
                old, self.ended[fact.award] = self.ended.get(fact.award), fact
                return [old] if old is not None else []
            case Accepted():
                old, self.accepted = self.accepted, fact
                return [old] if old is not None else []
            case Pinned():
                old, self.pins[fact.task] = self.pins.get(fact.task), fact
                return [old] if old is not None else []
            case Gave() if len(self.awards) > self._context.limits.awards_per_job_max:
                return self._oldest_vain_award()
        return []

    def _oldest_vain_award(self) -> list[AnyFact]:
        useful = {receipt.record.award for receipt in self.receipts.values()}
        for digest, ended in self.ended.items():
            if digest not in useful:
                return [Gave(award=self.awards[digest].signed), ended]
        return []

    def _drop(self, fact: AnyFact) -> None:
        key = key_of(fact)
        self._weigh(key, fact, -1)
        del self._all[key]
        match fact:
            case Gave(award=signed):
                del self.awards[signed.digest]
            case Ended(award=digest) if self.ended.get(digest) == fact:
                del self.ended[digest]

    def _weigh(self, key: FactKey, fact: AnyFact, sign: int) -> None:
        self.mark ^= int.from_bytes(key, "big")
        self.bytes += sign * size_of(fact)
