"""A node that is short of room takes nothing new, says why, and goes on with what it has."""

from __future__ import annotations

from protocol.events import StorageLow
from protocol.messages import Bid, Created, HoldAnswer, OfferDeclined, Refusal
from tests.protocol.mesh import Mesh

REASON = "this node's disk is nearly full"


def a_mesh(*others: str) -> Mesh:
    mesh = Mesh("ann", "bob", "cyd", *others)
    mesh.run_for(3)
    return mesh


def tell(mesh: Mesh, reason: str | None, *names: str) -> None:
    for name in names:
        mesh.give(mesh.ids[name], StorageLow(reason))


def test_no_job_is_taken_in_until_there_is_room_again() -> None:
    mesh = a_mesh()
    first, second = mesh.spec("ann"), mesh.spec("ann")
    accepted = mesh.submit("ann", first)
    tell(mesh, REASON, "ann")
    assert mesh.submit("ann", first) == accepted
    refused = mesh.submit("ann", second)
    assert (refused.accepted, refused.reason) == (False, REASON)
    mesh.run_for(5)
    assert mesh.status("ann", first).view.status == "success"
    tell(mesh, None, "ann")
    assert mesh.submit("ann", second).accepted


def test_no_copies_are_kept_and_no_bids_made() -> None:
    mesh = a_mesh("dan")
    tell(mesh, REASON, "bob")
    bob = mesh.ids["bob"]
    for _ in range(4):
        accepted = mesh.submit("ann", mesh.spec("ann"))
        assert accepted.copies == 2
    created = [message.reason for who, _, message in mesh.sent if who == bob and isinstance(message, Created)]
    assert set(created) == {REASON}
    answers = [message.reason for who, _, message in mesh.sent if who == bob and isinstance(message, HoldAnswer)]
    assert set(answers) <= {REASON}
    mesh.run_for(5)
    assert bob not in {who for who, _ in mesh.runs}
    refusals = [message for _, _, message in mesh.sent if isinstance(message, Refusal)]
    assert {refusal.reason for refusal in refusals} == {REASON}


def test_a_job_that_most_of_its_holders_have_no_room_for_is_refused_at_once() -> None:
    mesh = a_mesh()
    tell(mesh, REASON, "bob", "cyd")
    refused = mesh.submit("ann", mesh.spec("ann"))
    assert (refused.accepted, refused.reason) == (False, f"not accepted: a holder refuses its record: {REASON}")
    assert mesh.peers[mesh.ids["ann"]].snapshot().tables["records"] == 0
    tell(mesh, None, "bob", "cyd")
    assert mesh.submit("ann", mesh.spec("ann")).accepted


def test_an_offer_that_was_bid_for_is_declined() -> None:
    mesh = a_mesh()
    mesh.submit("ann", mesh.spec("ann"))
    while not any(isinstance(message, Bid) for who, _, message in mesh.sent if who == mesh.ids["bob"]):
        mesh.run_for(0.001)
    tell(mesh, REASON, "bob")
    mesh.run_for(5)
    declined = [message.reason for who, _, message in mesh.sent if isinstance(message, OfferDeclined)]
    assert declined
    assert set(declined) == {REASON}
    assert mesh.ids["bob"] not in {who for who, _ in mesh.runs}
