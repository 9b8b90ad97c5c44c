"""Names, times and signed bytes as people see them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.decrees import Certificate, Final, FinalBody, Next
from protocol.errors import RemoteProtocolError
from protocol.identity import Ed25519Verifier
from protocol.records import JobSpec, StageSpec, Vote
from protocol.show import job_name, read_signed, show_award, show_signed, show_spec, show_time, task_name
from protocol.show_record import ShownVotes, read_body, read_certificate, show_body, show_certificate
from protocol.signing import RecordReader, Signed
from protocol.wire import Holder, Link, Role, Task
from tests.protocol import samples

DIGEST = bytes.fromhex("bd92e3f1" + "0" * 56)
LINK = Link(cid="cid", size=1)


def a_spec(*stages: tuple[str, str]) -> JobSpec:
    return JobSpec(
        mesh="mesh",
        submitter="12D3KooWsubmitter",  # type: ignore[arg-type]
        nonce=bytes(16),
        issued_at=0,
        not_after=1,
        deadline_ms=1,
        holders=(Holder(peer="12D3KooWsteward", store=bytes(16)),),  # type: ignore[arg-type]
        steward="12D3KooWsteward",  # type: ignore[arg-type]
        input=LINK,
        stages=tuple(StageSpec(name=name, model=name, manifest=LINK, split=split) for name, split in stages),
    )


@pytest.mark.parametrize(
    ("stages", "task", "name"),
    [
        ([("features", "tile")], Task(index=6), "bd92-e3f1-06"),
        ([("features", "tile")], Task(index=1234), "bd92-e3f1-1234"),
        ([("features", "tile")], Task(role=Role.SPLIT), "bd92-e3f1.split"),
        ([("features", "tile")], Task(role=Role.MERGE), "bd92-e3f1.merge"),
        ([("features", "")], Task(), "bd92-e3f1-00"),
        ([("asr", "window"), ("summary", "")], Task(stage=0, index=3), "bd92-e3f1.asr-03"),
        ([("asr", "window"), ("summary", "")], Task(stage=0, role=Role.SPLIT), "bd92-e3f1.asr.split"),
        ([("asr", "window"), ("summary", "")], Task(stage=1), "bd92-e3f1.summary"),
        ([("asr", "window"), ("summary", "")], Task(stage=2), "bd92-e3f1.2-00"),
    ],
)
def test_tasks_have_the_names_that_users_know(stages: list[tuple[str, str]], task: Task, name: str) -> None:
    assert task_name(job_name(DIGEST, ""), a_spec(*stages), task) == name


def test_an_alias_is_what_users_see() -> None:
    assert job_name(DIGEST, "nightly") == "nightly"


@pytest.mark.parametrize(
    ("wall_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_790_000_000_007, "2026-09-21T14:13:20.007Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ((1 << 53) - 1, "9007199254740991 ms"),
    ],
)
def test_times_are_rfc_3339_as_far_as_the_calendar_goes(wall_ms: int, text: str) -> None:
    assert show_time(wall_ms) == text


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=1, max_size=200))
def test_signed_bytes_survive_being_shown(signature: bytes, payload: bytes) -> None:
    signed = Signed(payload=payload, signature=signature)
    assert read_signed(show_signed(signed)) == signed


@given(
    st.one_of(st.text(), st.binary(), st.none(), st.integers(), st.text("ABCDwxyz0189+/=", min_size=80, max_size=140))
)
def test_signed_bytes_have_one_text_and_all_else_is_refused(text: object) -> None:
    try:
        signed = read_signed(text)
    except RemoteProtocolError:
        return
    assert show_signed(signed) == text


# -- what holders decided ---------------------------------------------------------------------------------------------


def certificate_of(decree: Final | Next) -> Certificate:
    return samples.certificate(samples.spec(), decree)


@pytest.mark.parametrize(
    "decree",
    [Final(body=bytes(32)), Next(holders=(samples.holder("eve"),), steward=samples.holder("eve").peer)],
    ids=["end", "holders"],
)
def test_a_certificate_survives_being_shown(decree: Final | Next) -> None:
    certificate, reader = certificate_of(decree), RecordReader(Ed25519Verifier())
    shown = show_certificate(ShownVotes(certificate, [reader.open(vote, Vote) for vote in certificate.votes]))
    assert read_certificate(json.loads(json.dumps(shown))) == certificate


@pytest.mark.parametrize(
    "body",
    [samples.body(), samples.body(status="cancelled", output=None, entries=(), completed_at=(1 << 53) - 1)],
    ids=["success", "cancelled"],
)
def test_the_end_of_a_job_survives_being_shown(body: FinalBody) -> None:
    shown = json.loads(json.dumps(show_body(body)))
    assert read_body(shown) == body
    assert shown["status"] == body.status


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(["final", "next"])),
        lambda inner: st.dictionaries(
            st.sampled_from(["ballot", "decree", "votes", "kind", "body", "holders", "steward", "config", "node_id"]),
            st.one_of(inner, st.lists(inner, max_size=2)),
        ),
    )
)
def test_what_is_no_certificate_is_refused(shown: object) -> None:
    for read in (read_certificate, read_body):
        with pytest.raises(RemoteProtocolError):
            read(shown)


def test_what_was_wanted_and_what_was_paid_is_shown() -> None:
    job = samples.spec(stages=(samples.stage(needs=samples.CHOOSY),))
    needs = show_spec(job)["stages"][0]["needs"]
    assert needs["max_price"] == 0.005
    assert needs["placement"] == {
        "labels": {"region": "eu"},
        "only": ["gpu=a100", "rack=8"],
        "avoid": ["rack=7"],
        "near_input": True,
        "spread": "peers",
    }
    shown = show_award(samples.award(job, price=2_000, why="spread: 3 of at most 4 shards"))
    assert (shown["price"], shown["why"]) == (0.002, "spread: 3 of at most 4 shards")
    assert show_spec(samples.spec())["stages"][0]["needs"]["max_price"] is None
