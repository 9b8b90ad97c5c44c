"""Planted bugs: each can be planted and taken out again, and the easy ones are found here and now."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import FunctionType

import pytest

import protocol
from protocol import worker
from tests.simulations.planted import __main__ as command
from tests.simulations.planted.registry import BUGS, Bug, replaced
from tests.simulations.planted.runner import hunt, hunt_all

MODULES = [import_module(f"protocol.{found.name}") for found in iter_modules(protocol.__path__)]


def core() -> dict[str, object]:
    """Every function and property of every class that bugs are planted in."""
    return {
        f"{module.__name__}.{owner.__name__}.{name}": value
        for module in MODULES
        for owner in vars(module).values()
        if isinstance(owner, type)
        for name, value in vars(owner).items()
        if isinstance(value, FunctionType | property)
    }


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_bug_changes_the_core_and_is_taken_out_again(bug: Bug) -> None:
    before = core()
    with bug.plant():
        assert core() != before
    assert core() == before


def test_a_bug_is_taken_out_also_when_it_raises() -> None:
    before = core()
    with pytest.raises(KeyError), replaced(worker.Worker, "start", None):
        raise KeyError
    assert core() == before
    with pytest.raises(KeyError), replaced(worker.Worker, "no_such_method", None):
        pass


@pytest.mark.parametrize(
    "name", ["more_runs_than_slots", "incarnation_is_not_kept", "announcements_go_round_and_round"]
)
def test_an_easy_bug_is_found_at_once(name: str) -> None:
    found = hunt(name, range(1, 9))
    assert found.found == 1
    assert found.first_seed in range(1, 9)
    assert found.problem


def test_the_command_says_what_was_found_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seeds", "4", "--only", "incarnation_is_not_kept", "--only", "more_runs_than_slots", "--json"]
    assert command.main(arguments) == 0
    one, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (one["name"], one["found"]) == ("incarnation_is_not_kept", 1)
    assert other["problem"].startswith("runs: ")
    assert command.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(BUGS)


def test_the_report_says_how_each_fared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    harmless = Bug("harmless", "Nothing is wrong.", lambda: replaced(worker.Worker, "start", worker.Worker.start))
    monkeypatch.setitem(BUGS, "harmless", harmless)
    file = tmp_path / "planted.md"
    names = ["--only", "incarnation_is_not_kept", "--only", "harmless"]
    assert command.main(["--seeds", "2", *names, "--processes", "1", "--report", str(file)]) == 1
    text = file.read_text()
    assert "**1 of 2 bugs were found, 50%**" in text
    assert "python -m tests.simulations.planted --seeds 2 --only incarnation_is_not_kept" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [row[:1] + row[2:4] for row in rows] == [
        ["| `incarnation_is_not_kept`", "1", "incarnations"],
        ["| `harmless`", "not in 2", ""],
    ]


def test_a_bug_that_nobody_finds_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    harmless = Bug("harmless", "Nothing is wrong.", lambda: replaced(worker.Worker, "start", worker.Worker.start))
    monkeypatch.setitem(BUGS, "harmless", harmless)
    assert command.main(["--seeds", "1", "--only", "harmless", "--processes", "1"]) == 1
    assert "NOT FOUND" in capsys.readouterr().out


def test_with_all_every_seed_is_tried() -> None:
    (found,) = hunt_all(["incarnation_is_not_kept"], range(1, 5), every_seed=True, processes=1)
    assert found.seeds == 4
    assert 1 <= found.found <= 4
