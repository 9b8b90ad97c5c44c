"""What became of the planted bugs: kept as one JSON object a line, and told as a page."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.simulations.planted.registry import BUGS
from tests.simulations.planted.runner import Found

_INTRODUCTION = """\
Each is a deliberate mistake in the core (`tests/simulations/planted/`), put there at run time. It counts as found when
the world of a seed breaks a rule with it, and none without it. Seeds are tried in their order, up to the first that
finds the bug. `docs/simulation.md` says what the rules are."""


def read(file: Path | None) -> dict[str, Found]:
    """By name, the latest of each bug that there is; none without a file."""
    if file is None or not file.exists():
        return {}
    found = [Found(**json.loads(line)) for line in file.read_text().splitlines()]
    return {one.name: one for one in found if one.name in BUGS}


def keep(file: Path, found: Found) -> None:
    """Append it at once: a hunt that is interrupted goes on after it."""
    with file.open("a") as lines:
        lines.write(json.dumps(found._asdict()) + "\n")


def is_settled(found: Found | None, seeds: int) -> bool:
    """Whether nothing more is learnt about a bug in so many worlds."""
    return found is not None and (found.found > 0 or found.seeds >= seeds)


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
        f"* Version: {', '.join(dict.fromkeys(one.version for one in results))}",
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


def version_at_hand() -> str:
    """Of the code at hand, as git has it."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
