"""What the page of results says of a soak that is not whole."""

from __future__ import annotations

from tests.soak.pieces import Json
from tests.soak.results import page


def part(done: int, ok: bool = True) -> Json:
    return {"done": done, "pieces": 2, "summary": {"ok": ok}}


def test_a_page_of_a_whole_soak_says_nothing_is_missing() -> None:
    text = page({}, {"chaos": part(2), "register": part(2, ok=False)})
    assert "a part of the soak" not in text
    assert "| chaos | 2 of 2 | yes |" in text
    assert "| register | 2 of 2 | no |" in text


def test_a_page_names_what_was_not_run_and_what_is_not_finished() -> None:
    text = page({}, {"chaos": part(1), "seeds": part(0), "register": part(2)})
    assert "**This is a part of the soak.** Not run: seeds; not finished: chaos." in text
    assert "| chaos | 1 of 2 | so far |" in text
    assert "| seeds | 0 of 2 | - |" in text
