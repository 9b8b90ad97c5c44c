"""A page about the planted bugs: how many of them were found, in how many worlds, by which rule."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence

from tests.simulations.planted.registry import BUGS
from tests.simulations.planted.runner import Found

_INTRODUCTION = """\
Each is a deliberate mistake in the core (`tests/simulations/planted/`), put there at run time. It counts as found when
the world of a seed breaks a rule with it, and none without it. Seeds are tried in their order, up to the first that
finds the bug. `docs/simulation.md` says what the rules are."""


def page(results: Sequence[Found], command: str) -> str:
    """Markdown; ``command`` is what had these results."""
    found = [one for one in results if one.found]
    needed = sorted(one.seeds for one in found) or [0]
    rules = Counter(_rule(one) for one in found)
    lines = [
        "# Planted bugs",
        "",
        _INTRODUCTION,
        "",
        f"**{len(found)} of {len(results)} bugs were found, {len(found) / max(len(results), 1):.0%}**:"
        f" half of these within {needed[(len(needed) - 1) // 2]} worlds, all within {needed[-1]}.",
        "",
        f"* Version: {_version()}",
        f"* Command: `{command}`",
        f"* By rule: {', '.join(f'{rule} {count}' for rule, count in rules.most_common())}",
        "",
        "| Bug | What is wrong | Worlds | Rule | What the last of them broke |",
        "|---|---|---|---|---|",
    ]
    for one in results:
        worlds = str(one.seeds) if one.found else f"not in {one.seeds}"
        seen = one.problem.split(": ", 1)[-1].replace("|", "/")
        lines.append(f"| `{one.name}` | {BUGS[one.name].what} | {worlds} | {_rule(one)} | {seen} |")
    return "\n".join(lines) + "\n"


def _rule(found: Found) -> str:
    """Its name, or that the core raised."""
    return found.problem.split(":", 1)[0]


def _version() -> str:
    """Of the code at hand, as git has it."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
