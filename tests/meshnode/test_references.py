"""Which blobs are in use, by the journal's rows."""

from __future__ import annotations

import base58
from hypothesis import given
from hypothesis import strategies as st

from meshnode.blobs.cid import DAG_PB, RAW, Cid
from meshnode.references import References, cids_in
from protocol.codec import encode
from protocol.durable import Table
from protocol.effects import Record
from tests.protocol.mesh import Mesh

ONE, TWO = str(Cid.of(RAW, b"one")), str(Cid.of(DAG_PB, b"two"))


def test_a_blob_is_in_use_from_the_first_row_that_names_it_to_the_last() -> None:
    references = References([("job", b"1", b"x;" + ONE.encode())])
    references.note([Record("step", b"1", f'{{"cid":"{ONE}"}}{TWO}'.encode()), Record("job", b"1", None)])
    assert ONE in references
    assert TWO in references
    references.note([Record("step", b"1", TWO.encode())])
    assert ONE not in references
    references.note([Record("step", b"1", None), Record("step", b"none", None)])
    assert TWO not in references


def test_an_older_spelling_is_the_same_blob() -> None:
    old = base58.b58encode(b"\x12\x20" + Cid.of(DAG_PB, b"two").digest)
    assert cids_in(b"ipfs://" + old) == (TWO,)


def test_a_pointer_that_is_kept_for_others_is_no_use_of_it() -> None:
    assert ONE not in References([(Table.POINTER, b"1", ONE.encode())])
    assert ONE in References([(Table.PLACEMENT, b"1", ONE.encode())])


def test_every_blob_of_a_signed_spec_is_found() -> None:
    spec = Mesh("ann").spec("ann")
    named = cids_in(encode(spec.signed).replace(b"cid-model", ONE.encode()).replace(b"cid-input", TWO.encode()))
    assert set(named) == {ONE, TWO}


@given(st.binary() | st.from_regex(rb"(baf[a-z2-7]{50,60}|Qm[1-9A-Za-z]{40,50})+"))
def test_whatever_a_row_holds(content: bytes) -> None:
    assert all(cid.startswith("baf") for cid in cids_in(content))
