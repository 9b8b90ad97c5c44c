"""Whatever is changed in a job's details, by a byte or by a field, ``verify`` names the place."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import show
from protocol.decrees import Certificate, Decree, Entry, Final, FinalBody, Next, digest_of
from protocol.identity import Ed25519Signer, Ed25519Verifier
from protocol.messages import JobView, TaskView, TryView
from protocol.records import Award, JobSpec, Part, Receipt, StageSpec, Vote
from protocol.show_record import ShownVotes, show_record
from protocol.signing import Opened, RecordReader, sign
from protocol.verify import Problem, verify
from protocol.wire import Ballot, Holder, Link, Needs, Output, Placement, Range, Role, Task

SUBMITTER, STEWARD, OTHER, *WORKERS, THIRD, LATER = (Ed25519Signer(bytes([number]) * 32) for number in range(1, 9))
SHARDS = 4
NOW_MS = 1_790_000_000_000
ANY_NEEDS = Needs()


def an_output(text: str) -> Output:
    return Output(cid=f"bafk{text}", size=len(text), sha256=hashlib.sha256(text.encode()).digest())


def a_holder(key: Ed25519Signer) -> Holder:
    return Holder(peer=key.peer_id, store=hashlib.sha256(key.peer_id.encode()).digest()[:16])


class Story:
    """A finished job of one stage: split, shards on several workers, perhaps another steward, merge."""

    def __init__(
        self,
        *,
        split: str = "tile",
        merge: str = "concat-json",
        alias: str = "",
        successor: Ed25519Signer | None = None,
        needs: Needs = ANY_NEEDS,
    ) -> None:
        stage = StageSpec(
            needs=needs,
            name="features-v1",
            model="features-v1",
            manifest=Link(cid="bafkmanifest", size=300),
            split=split,
            merge=merge,
            settings=b'{"params":{"threshold":0.2}}',
            shard_count=SHARDS if split else 0,
            allow_failures=1 if split else 0,
        )
        self.holders = tuple(a_holder(one) for one in (STEWARD, OTHER, THIRD))
        self.steward = STEWARD
        self.chain: list[Certificate] = []
        self.spec = sign(
            JobSpec(
                mesh="mesh",
                submitter=SUBMITTER.peer_id,
                alias=alias,
                nonce=b"n" * 16,
                issued_at=NOW_MS,
                not_after=NOW_MS + 3_600_000,
                deadline_ms=600_000,
                holders=self.holders,
                steward=STEWARD.peer_id,
                input=Link(cid="bafkinput", size=100),
                blobs=(Link(cid="bafkinput", size=100), Link(cid="bafkmanifest", size=300)),
                stages=(stage,),
            ),
            SUBMITTER,
        )
        self.awards: list[Opened[Award]] = []
        self.receipts: list[Opened[Receipt]] = []
        if split:
            self.run_split()
        self.run_shards()
        if successor is not None:
            self.change_holders(successor, THIRD, OTHER)
        if merge:
            self.run_merge()

    def award(self, worker: Ed25519Signer, role: Role, *ranges: tuple[int, int], **given: Any) -> Opened[Award]:
        award = Award(
            job=self.spec.digest,
            holders=self.holders,
            steward=self.steward.peer_id,
            ballot=self.ballot,
            worker=worker.peer_id,
            stage=0,
            role=role,
            ranges=tuple(Range(start=start, stop=stop) for start, stop in ranges),
            attempt=1,
            lease_ms=60_000,
            nonce=len(self.awards),
            issued_at=NOW_MS + 100,
            not_after=NOW_MS + 60_100,
            **given,
        )
        self.awards.append(sign(award, self.steward))
        return self.awards[-1]

    def receipt(
        self, worker: Ed25519Signer, award: Opened[Award], index: int, text: str, **given: Any
    ) -> Opened[Receipt]:
        receipt = Receipt(
            job=self.spec.digest,
            task=Task(role=award.record.role, index=index),
            award=award.digest,
            attempt=1,
            worker=worker.peer_id,
            success=True,
            output=an_output(text),
            input_hash=hashlib.sha256(f"input {index}".encode()).digest(),
            runtime="bubblewrap/namespace",
            queued_ms=3,
            transfer_ms=11,
            run_ms=268,
            latency_ms=282,
            started_at=NOW_MS + 200 + index,
            issued_at=NOW_MS + 500,
            **given,
        )
        self.receipts.append(sign(receipt, worker))
        return self.receipts[-1]

    def run_split(self) -> None:
        award = self.award(WORKERS[0], Role.SPLIT, (0, 1))
        self.split = self.receipt(WORKERS[0], award, 0, "split", shards=SHARDS)

    def run_shards(self) -> None:
        if not self.spec.record.stages[0].split:
            self.receipt(WORKERS[0], self.award(WORKERS[0], Role.SHARD, (0, 1), shards=1), 0, "only")
            return
        halves = (WORKERS[0], ((0, 1), (3, 4))), (WORKERS[1], ((1, 3),))
        for worker, ranges in halves:
            award = self.award(
                worker,
                Role.SHARD,
                *ranges,
                shards=SHARDS,
                split=self.split.record.output,
                split_receipt=self.split.digest,
            )
            for start, stop in ranges:
                for index in range(start, stop):
                    self.receipt(worker, award, index, f"shard {index}", upstream=(self.split.digest,))

    def run_merge(self) -> None:
        shards = sorted(
            (one for one in self.receipts if one.record.task.role is Role.SHARD), key=lambda one: one.record.task
        )
        parts = tuple(Part(index=one.record.task.index, output=one.record.output, receipt=one.digest) for one in shards)
        award = self.award(WORKERS[2], Role.MERGE, (0, 1), shards=SHARDS, parts=parts)
        self.receipt(WORKERS[2], award, 0, "merged", upstream=tuple(one.digest for one in shards))

    def change_holders(self, steward: Ed25519Signer, *others: Ed25519Signer) -> None:
        """The holders so far let these take over; what is awarded from now on ``steward`` signs."""
        decree = Next(holders=tuple(a_holder(one) for one in (steward, *others)), steward=steward.peer_id)
        self.chain.append(self.certificate(decree, STEWARD, OTHER))
        self.holders, self.steward = decree.holders, steward

    @property
    def ballot(self) -> Ballot:
        return Ballot(config=len(self.chain), peer=self.steward.peer_id)

    def certificate(self, decree: Decree, /, *voters: Ed25519Signer, **changes: Any) -> Certificate:
        """Signed by ``voters``, whoever they are."""
        votes = []
        for voter in voters:
            vote = Vote(
                job=self.spec.digest,
                ballot=self.ballot,
                decree=digest_of(decree),
                peer=voter.peer_id,
                store=a_holder(voter).store,
            )
            votes.append(sign(msgspec.structs.replace(vote, **changes), voter).signed)
        return Certificate(ballot=self.ballot, decree=decree, votes=tuple(votes))

    @property
    def body(self) -> FinalBody:
        shards = [one for one in self.receipts if one.record.task.role is Role.SHARD]
        return FinalBody(
            job=self.spec.digest,
            status="success",
            entries=tuple(Entry(task=one.record.task, receipt=one.digest) for one in self.receipts),
            total_shards=len(shards),
            succeeded=len(shards),
            output=self.receipts[-1].record.output,
            keepers=(self.steward.peer_id,),
            completed_at=NOW_MS + 5_000,
            clock=NOW_MS + 5_001,
        )

    def end(self, **body: Any) -> Certificate:
        decree = Final(body=digest_of(msgspec.structs.replace(self.body, **body)))
        return self.certificate(decree, self.steward, OTHER)

    def details(self, *chain: Certificate, body: FinalBody | None = None) -> dict[str, Any]:
        """As printed by ``infra job --id ID --details --json``; with this chain and end, or those of the story."""
        body = body or self.body
        reader = RecordReader(Ed25519Verifier())
        certificates = chain or (*self.chain, self.end())
        votes = [[reader.open(vote, Vote) for vote in one.votes] for one in certificates]
        record = show_record([ShownVotes(*one) for one in zip(certificates, votes, strict=True)], body)
        shards = [one for one in self.receipts if one.record.task.role is Role.SHARD]
        view = JobView(
            job=self.spec.digest,
            alias=self.spec.record.alias,
            submitter=SUBMITTER.peer_id,
            steward=self.steward.peer_id,
            model="features-v1",
            status="success",
            merge_status="success" if self.spec.record.stages[0].merge else "none",
            total_shards=len(shards),
            succeeded=len(shards),
            failed=0,
            running=0,
            output=self.receipts[-1].record.output,
            issued_at=NOW_MS,
            completed_at=NOW_MS + 5_000,
        )
        tasks = [
            TaskView(
                task=one.record.task,
                status="success",
                tries=(
                    TryView(worker=OTHER.peer_id, attempt=1, award=bytes(32), outcome="lost", reason="unheard of"),
                    TryView(worker=one.record.worker, attempt=1, award=one.record.award, outcome="success"),
                ),
                receipt=one.signed,
            )
            for one in self.receipts
        ]
        printed = json.dumps(show.show_details(view, self.spec, tasks, self.receipts, self.awards, record))
        return json.loads(printed)


STORY = Story()
DETAILS = STORY.details()


def problems_of(document: object) -> list[Problem]:
    return verify(document, Ed25519Verifier())


def places_of(document: object) -> list[str]:
    return [problem.place for problem in problems_of(document)]


@pytest.mark.parametrize(
    "story",
    [STORY, Story(alias="bd92-e3f1"), Story(split="", merge=""), Story(merge="none"), Story(successor=LATER)],
    ids=["short id", "alias", "one task", "links", "another steward"],
)
def test_an_honest_document_has_no_problems(story: Story) -> None:
    document = story.details()
    if story.spec.record.stages[0].merge == "none":
        document["merge_status"] = "none"
    assert problems_of(document) == []


def test_a_receipt_is_shown_as_promised() -> None:
    shown = Story(alias="bd92-e3f1").details()["receipts"][1]
    assert list(shown) == [
        "job_id",
        "shard_index",
        "latency_ms",
        "output_hash",
        "node_id",
        "status",
        "attempt",
        "input_hash",
        "image",
        "queued_ms",
        "pull_ms",
        "transfer_ms",
        "run_ms",
        "started_at",
        "signed",
    ]
    assert shown["job_id"] == "bd92-e3f1-00"
    assert shown["output_hash"] == "0x" + hashlib.sha256(b"shard 0").hexdigest()
    assert shown["started_at"] == "2026-09-21T14:13:20.200Z"


# -- bytes ----------------------------------------------------------------------------------------------------------


SIGNED: list[tuple[Any, ...]] = [
    ("spec",),
    *((key, index) for key in ("awards", "receipts") for index in range(len(DETAILS[key]))),
    *(("record", "chain", 0, "votes", index) for index in range(2)),
]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_byte_flipped_in_anything_signed_is_found_where_it_is(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(SIGNED))
    document = copy.deepcopy(DETAILS)
    shown = reached(document, path)
    signed = bytearray(base64.b64decode(shown["signed"]))
    at = data.draw(st.integers(0, len(signed) - 1))
    signed[at] ^= data.draw(st.integers(1, 255))
    shown["signed"] = base64.b64encode(signed).decode()
    assert f"{place_of(path)}.signed" in places_of(document)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_byte_flipped_in_the_decided_end_is_found(data: st.DataObject) -> None:
    document = copy.deepcopy(DETAILS)
    encoded = bytearray(base64.b64decode(document["record"]["final"]["encoded"]))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    document["record"]["final"]["encoded"] = base64.b64encode(encoded).decode()
    assert "record.final.encoded" in places_of(document)


@given(position=st.integers(0, 10_000), character=st.characters())
@settings(deadline=None)
def test_any_character_changed_in_the_base64_is_found(position: int, character: str) -> None:
    document = copy.deepcopy(DETAILS)
    text = document["receipts"][2]["signed"]
    at = position % len(text)
    document["receipts"][2]["signed"] = changed = text[:at] + character + text[at + 1 :]
    assert (changed == text) == (problems_of(document) == [])


# -- fields ---------------------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list) and value:
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


# What only the steward says, and nobody signed.
UNSIGNED = {"refusals", "keepers"}
CHECKED = [path for path in leaves(DETAILS) if path[0] not in UNSIGNED and "tries" not in path and path[-1] != "signed"]
JSON_VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=70), st.just([]), st.just({}))


def place_of(path: tuple[Any, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def reached(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(CHECKED), value=JSON_VALUES)
def test_any_shown_field_changed_is_found_where_it_is(path: tuple[Any, ...], value: Any) -> None:
    document = copy.deepcopy(DETAILS)
    holder = reached(document, path[:-1])
    if (type(holder[path[-1]]), holder[path[-1]]) == (type(value), value):
        return
    holder[path[-1]] = value
    places = places_of(document)
    top = path[0] in ("output",)
    assert (
        any(place_of(path) == place or (top and place == path[0]) for place in places)
        or (path[0] == "tasks" and any(place.startswith(("tasks", "receipts")) for place in places))
        or (path[:2] == ("record", "chain") and any(place.startswith(place_of(path[:3])) for place in places))
    ), places


@settings(max_examples=100, deadline=None)
@given(path=st.sampled_from(leaves(DETAILS["receipts"], ("receipts",))))
def test_a_field_left_out_of_a_receipt_is_found(path: tuple[Any, ...]) -> None:
    document = copy.deepcopy(DETAILS)
    del reached(document, path[:-1])[path[-1]]
    assert place_of(path) in places_of(document)


def test_a_field_added_to_a_receipt_is_found() -> None:
    document = copy.deepcopy(DETAILS)
    document["receipts"][0]["quality"] = "best"
    assert places_of(document) == ["receipts[0].quality"]


# -- records that are good, but not of this story -------------------------------------------------------------------


def resigned(story: Story, index: int, signer: Ed25519Signer, **changes: Any) -> dict[str, Any]:
    """The story's details with one receipt changed and signed again: each signature is good, the whole is not."""
    receipt = msgspec.structs.replace(story.receipts[index].record, **changes)
    story.receipts[index] = sign(receipt, signer)
    return story.details()


def test_a_receipt_by_another_worker_than_the_award_names_is_found() -> None:
    document = resigned(Story(), 2, OTHER, worker=OTHER.peer_id)
    assert "receipts[2].node_id" in places_of(document)


def test_a_receipt_of_a_task_that_the_award_did_not_give_is_found() -> None:
    document = resigned(Story(), 1, WORKERS[0], task=Task(role=Role.SHARD, index=1))
    assert "receipts[1].job_id" in places_of(document)


def test_a_shard_that_was_given_another_output_after_the_merge_is_found() -> None:
    document = resigned(Story(), 3, WORKERS[1], output=an_output("something else"))
    (problem,) = problems_of(document)
    assert problem.place == f"receipts[{SHARDS + 1}]"
    assert "shard 1" in problem.sentence


def resigned_award(index: int, story: Story | None = None, **changes: Any) -> Story:
    """A story in which one award, and the receipts that name it, say something else, all properly signed."""
    story = story or Story()
    before = story.awards[index]
    after = sign(msgspec.structs.replace(before.record, **changes), STEWARD)
    story.awards[index] = after
    workers = {worker.peer_id: worker for worker in WORKERS}
    for at, receipt in enumerate(story.receipts):
        if receipt.record.award == before.digest:
            renamed = msgspec.structs.replace(receipt.record, award=after.digest)
            story.receipts[at] = sign(renamed, workers[receipt.record.worker])
    return story


@pytest.mark.parametrize(
    ("placement", "sentence"),
    [
        (Placement(avoid=(WORKERS[1].peer_id,)), "is a peer that the job avoids"),
        (Placement(only=(WORKERS[0].peer_id, WORKERS[2].peer_id)), "is not among the only places of the job"),
    ],
)
def test_work_of_a_peer_that_the_job_excludes_is_found(placement: Placement, sentence: str) -> None:
    story = Story(needs=Needs(placement=placement))
    excluded = {
        f"receipts[{at}].node_id" for at, one in enumerate(story.receipts) if one.record.worker == WORKERS[1].peer_id
    }
    problems = problems_of(story.details())
    assert excluded
    assert {problem.place for problem in problems} == excluded
    assert {problem.sentence for problem in problems} == {sentence}


def test_where_labels_decide_nothing_can_be_said_offline() -> None:
    needs = Needs(placement=Placement(only=(WORKERS[0].peer_id, "region=eu"), labels={"region": "eu"}))
    assert problems_of(Story(needs=needs).details()) == []


def test_work_at_more_than_the_job_pays_is_found() -> None:
    story = resigned_award(1, Story(needs=Needs(max_price=200_000)), price=300_000)
    assert "was awarded for more than the job pays: price 0.3 > 0.2" in {
        problem.sentence for problem in problems_of(story.details())
    }
    assert problems_of(resigned_award(-1, Story(needs=Needs(max_price=200_000)), price=200_000).details()) == []


def test_shards_that_read_another_splits_output_are_found() -> None:
    document = resigned_award(2, split=an_output("another split")).details()
    found = [problem for problem in problems_of(document) if "another split" in problem.sentence]
    assert [problem.place for problem in found] == ["receipts[3]", "receipts[4]"]


def test_a_merge_that_left_out_a_success_is_found() -> None:
    parts = list(STORY.awards[3].record.parts)
    parts[1] = Part(index=1)
    document = resigned_award(3, parts=tuple(parts)).details()
    assert any("left out shard 1" in problem.sentence for problem in problems_of(document))


@pytest.mark.parametrize("kept", [slice(0, 3), slice(1, 4)])
def test_a_merge_of_too_few_parts_is_found(kept: slice) -> None:
    document = resigned_award(3, parts=STORY.awards[3].record.parts[kept]).details()
    assert any("merged 3 parts of 4" in problem.sentence for problem in problems_of(document))


def test_receipts_that_do_not_name_what_they_read_are_found() -> None:
    for index, worker in ((2, WORKERS[0]), (5, WORKERS[2])):
        assert f"receipts[{index}]" in places_of(resigned(Story(), index, worker, upstream=()))


def test_an_award_by_a_peer_that_holds_nothing_is_found() -> None:
    story = Story()
    stranger = WORKERS[0]
    award = msgspec.structs.replace(
        story.awards[1].record, steward=stranger.peer_id, ballot=Ballot(peer=stranger.peer_id)
    )
    story.awards[1] = sign(award, stranger)
    assert "awards[1].steward" in places_of(story.details())


def test_records_of_another_job_are_found() -> None:
    other = Story(alias="other").details()
    document = {**copy.deepcopy(DETAILS), "receipts": other["receipts"], "awards": other["awards"]}
    places = places_of(document)
    assert "receipts[0]" in places
    assert "awards[0].full_id" in places


@pytest.mark.parametrize("key", ["awards", "receipts", "tasks"])
def test_an_entry_left_out_is_found(key: str) -> None:
    for index in range(len(DETAILS[key])):
        document = copy.deepcopy(DETAILS)
        del document[key][index]
        assert problems_of(document) != [], index


# -- what the holders decided ---------------------------------------------------------------------------------------


def certified_by(*voters: Ed25519Signer, **changes: Any) -> dict[str, Any]:
    story = Story()
    return story.details(story.certificate(Final(body=digest_of(story.body)), *voters, **changes))


UNCERTIFIED = {
    "nobody": lambda: {**copy.deepcopy(DETAILS), "record": {"chain": [], "final": None}},
    "a minority": lambda: certified_by(STEWARD),
    "one holder twice": lambda: certified_by(STEWARD, STEWARD),
    "a holder and a stranger": lambda: certified_by(STEWARD, LATER),
    "holders with other disks": lambda: certified_by(STEWARD, OTHER, store=bytes(16)),
    "votes for another end": lambda: certified_by(STEWARD, OTHER, decree=bytes(32)),
    "votes in another ballot": lambda: certified_by(STEWARD, OTHER, ballot=Ballot(epoch=3, peer=STEWARD.peer_id)),
    "votes about another job": lambda: certified_by(STEWARD, OTHER, job=bytes(32)),
    "the certificate of another job": lambda: Story().details(Story(alias="other").end()),
    "holders that nobody named": lambda: _by_later_holders(Story()),
}


def _by_later_holders(story: Story) -> dict[str, Any]:
    story.change_holders(LATER, THIRD, OTHER)
    return story.details(story.end())


@pytest.mark.parametrize("make", UNCERTIFIED.values(), ids=UNCERTIFIED)
def test_an_end_that_no_majority_of_the_jobs_holders_voted_for_is_found(make: Any) -> None:
    problems = problems_of(make())
    assert ("status", "is success, but no certificate of its holders says so") in problems


def test_without_the_record_an_end_is_only_said() -> None:
    document = copy.deepcopy(DETAILS)
    del document["record"]
    assert {"record", "status"} <= set(places_of(document))


def test_an_end_that_was_certified_and_is_not_shown_is_found() -> None:
    document = copy.deepcopy(DETAILS)
    document["record"]["final"] = None
    assert places_of(document) == ["record.final"]
    document["status"] = "running"
    assert "status" in places_of(document)


def test_another_end_than_the_certified_one_is_found() -> None:
    story = Story()
    other = msgspec.structs.replace(story.body, completed_at=NOW_MS + 1)
    assert places_of(story.details(story.end(), body=other)) == ["record.final.encoded"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"status": "failed", "output": None}, "status"),
        ({"succeeded": SHARDS - 1}, "succeeded"),
        ({"failed": 1}, "failed"),
        ({"total_shards": SHARDS + 1}, "total_shards"),
        ({"completed_at": NOW_MS}, "completed_at"),
        ({"output": an_output("another")}, "output_hash"),
        ({"error": "none"}, "error"),
        ({"entries": STORY.body.entries[:-1]}, f"receipts[{SHARDS + 1}]"),
        ({"entries": (*STORY.body.entries[:-1], Entry(task=Task(role=Role.MERGE), receipt=bytes(32)))}, "receipts[5]"),
        ({"entries": (*STORY.body.entries, Entry(task=Task(index=9), receipt=bytes(32)))}, "record.final.entries[6]"),
    ],
)
def test_a_certified_end_that_is_not_what_is_shown_is_found(change: dict[str, Any], place: str) -> None:
    story = Story()
    body = msgspec.structs.replace(story.body, **change)
    assert place in places_of(story.details(story.end(**change), body=body))


def test_a_running_job_has_no_certificate_and_needs_none() -> None:
    document = copy.deepcopy(DETAILS)
    document |= {"status": "running", "output": None, "output_hash": None, "completed_at": None}
    document["record"] = {"chain": [], "final": None}
    assert problems_of(document) == []
    document["record"]["final"] = DETAILS["record"]["final"]
    assert places_of(document) == ["record.final.encoded"]


def test_the_steward_shown_is_a_holder_and_of_an_ended_job_the_one_that_had_it_decided() -> None:
    document = copy.deepcopy(DETAILS)
    document["steward"] = OTHER.peer_id
    assert places_of(document) == ["steward"]
    document |= {"status": "running", "output": None, "output_hash": None}
    document["record"] = {"chain": [], "final": None}
    assert problems_of(document) == []
    document["steward"] = LATER.peer_id
    assert places_of(document) == ["steward"]


def test_a_later_holder_that_is_not_proven_to_be_one_had_nothing_to_award() -> None:
    document = Story(successor=LATER).details()
    del document["record"]["chain"][0]
    places = places_of(document)
    assert {"awards[3].steward", "record.chain[0].ballot", "status"} <= set(places)


# -- anything at all ------------------------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(document=ANY_JSON)
def test_any_other_document_is_a_problem_and_not_an_exception(document: Any) -> None:
    assert problems_of(document) != []


@settings(deadline=None)
@given(key=st.sampled_from(sorted(DETAILS)), value=ANY_JSON)
def test_any_value_in_place_of_a_part_is_no_exception(key: str, value: Any) -> None:
    problems_of({**DETAILS, key: value})
    problems_of({**DETAILS, "record": {**DETAILS["record"], "chain": [value], "final": value}})
    problems_of({**DETAILS, "record": {"chain": [{**DETAILS["record"]["chain"][0], "decree": value}], "final": None}})
    problems_of({**DETAILS, "record": {"chain": [{**DETAILS["record"]["chain"][0], "votes": value}], "final": None}})
    if key in ("awards", "receipts", "tasks"):
        problems_of({**DETAILS, key: [value]})
