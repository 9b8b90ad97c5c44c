"""What strangers wrote is read within bounds, whatever it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshnode.execution.faults import TaskFault
from meshnode.execution.linked import LINKS_MAX, TooManyLinks, find_links, replaced
from meshnode.execution.models import parse_manifest
from meshnode.execution.shards import shards_of_task
from protocol.wire import Link, Output

CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(CID)
_KEYS = st.sampled_from(
    ["cid", "size", "path", "files", "model", "mode", "shards", "count", "tasks", "command", "model_id", "x"]
)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=5), max_leaves=20
)


@given(value=_JSON)
def test_any_json_has_links_or_none(value: Any) -> None:
    links = find_links(value)
    assert len({link.cid for link in links}) == len(links)
    assert replaced(value, lambda item: item) == value or "nan" in repr(value)


@given(value=_JSON)
def test_any_json_is_a_manifest_or_a_fault(value: Any) -> None:
    with suppress(TaskFault):
        parse_manifest(value)


async def no_blob(what: str, link: Link | Output) -> Any:
    raise TaskFault(f"{what} is not there")


@given(value=_JSON, index=st.integers())
def test_any_json_is_a_split_or_a_fault(value: Any, index: int) -> None:
    with suppress(TaskFault):
        trio.run(shards_of_task, value, index, no_blob)


def test_a_link_is_found_once_in_order_and_only_if_its_cid_is_one() -> None:
    one, other = {"cid": CID, "size": 1}, {"cid": CID[:-2] + "aa", "size": 2}
    value = {"b": [one, {"tiles": [other, one]}], "c": {"cid": "no cid", "size": 3}, "d": {"cid": CID}}
    assert [link.size for link in find_links(value)] == [1, 2]


def test_too_many_links_are_refused() -> None:
    from meshnode.blobs.cid import RAW, Cid

    value = [{"cid": str(Cid.of(RAW, number.to_bytes(4, "big"))), "size": 4} for number in range(LINKS_MAX + 1)]
    with pytest.raises(TooManyLinks):
        find_links(value)
