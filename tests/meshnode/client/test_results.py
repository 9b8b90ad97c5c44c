"""Answers and addresses that are anything at all end in a value or in one of the client's own errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.client.errors import ClientError, NoNode, RequestRefused
from meshnode.client.home import default_home
from meshnode.client.http import find_api, refusal
from meshnode.client.results import Accepted, Job, JobOutput, Proposal, ResolvedModel, read_result

ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(answer=ANY_JSON, kind=st.sampled_from([Accepted, Job, JobOutput, Proposal, ResolvedModel]))
def test_an_answer_is_a_result_or_refused(answer: Any, kind: Any) -> None:
    try:
        result = read_result(answer, kind)
    except RequestRefused:
        return
    assert isinstance(result, kind)


def test_what_a_later_node_adds_is_skipped() -> None:
    job = read_result({"job_id": "a", "full_id": "b", "status": "running", "colour": "blue"}, Job)
    assert not job.ended


@given(error=ANY_JSON)
def test_an_error_is_one_of_ours(error: Any) -> None:
    assert isinstance(refusal(error), RequestRefused)


def test_silence_behind_a_node_is_no_node() -> None:
    error = {"code": "no-answer", "message": "the steward does not answer", "place": ""}
    assert isinstance(refusal(error), NoNode)


@given(st.text())
def test_an_api_url_is_one_or_is_refused(text: str) -> None:
    try:
        url, _token = find_api(text, default_home())
    except ClientError:
        return
    assert url.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("api", "found"),
    [
        ("http://secret@127.0.0.1:8080", ("http://127.0.0.1:8080", "secret")),
        ("http://secret:@127.0.0.1:8080/", ("http://127.0.0.1:8080/", "secret")),
        ("http://127.0.0.1:8080", ("http://127.0.0.1:8080", "")),
        ("http://a%2Fb@[::1]:8080", ("http://[::1]:8080", "a/b")),
    ],
)
def test_the_token_is_the_user_name(api: str, found: tuple[str, str]) -> None:
    assert find_api(api, default_home()) == found
