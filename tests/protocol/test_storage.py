"""A node that is short of room takes nothing new, says why, and goes on with what it has."""

from __future__ import annotations

from protocol.events import StorageLow
from protocol.messages import Bid, HoldAnswer, OfferDeclined, Refusal
from tests.protocol.mesh import Mesh

REASON = "this node's disk is nearly full"


def a_mesh() -> Mesh:
    mesh = Mesh("ann", "bob", "cyd")
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
    mesh = a_mesh()
    tell(mesh, REASON, "bob", "cyd")
    spec = mesh.spec("ann")
    accepted = mesh.submit("ann", spec)
    assert accepted.copies == 1
    answers = [message for _, _, message in mesh.sent if isinstance(message, HoldAnswer)]
    assert {answer.reason for answer in answers} == {REASON}
    mesh.run_for(5)
    assert {who for who, _ in mesh.runs} == {mesh.ids["ann"]}
    refusals = [message for _, _, message in mesh.sent if isinstance(message, Refusal)]
    assert {refusal.reason for refusal in refusals} == {REASON}


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
