"""The log is safe to read, whoever wrote into it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from meshnode.log import logging_to


def test_a_remote_text_stays_on_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "node.log"
    with logging_to(path):
        logging.getLogger("mesh").info("hello")
        logging.getLogger("mesh").warning("%s", "x\n2026-01-01 WARNING forged\x1b[31m\u202e")
        logging.getLogger("mesh").debug("not asked for")
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert "\\n2026-01-01 WARNING forged\\x1b[31m\\u202e" in lines[1]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_traceback_keeps_its_lines(tmp_path: Path) -> None:
    with logging_to(tmp_path / "node.log", warn_on_stderr=False):
        try:
            raise ZeroDivisionError("on purpose")
        except ZeroDivisionError:
            logging.getLogger("mesh").exception("failed")
    assert "\nZeroDivisionError: on purpose" in (tmp_path / "node.log").read_text()


def test_afterwards_nothing_is_logged_there(tmp_path: Path) -> None:
    with logging_to(tmp_path / "node.log", warn_on_stderr=False):
        pass
    logging.getLogger("mesh").error("late")
    assert (tmp_path / "node.log").read_text() == ""
