"""What the soak found, as JSON and as a page."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.soak.pieces import Json

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "results"


def version() -> str:
    """The commit, and whether anything else than results was changed since."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return commit + ("-changed" if _git("status", "--porcelain", "--", ".", ":!docs/results") else "")


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    processors = len(os.sched_getaffinity(0))
    return f"{processors} processors, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def write(folder: Path, about: Json, parts: Mapping[str, Json]) -> None:
    """``soak.json`` and ``README.md`` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.json").write_text(json.dumps({**about, "parts": parts}, indent=1) + "\n")
    (folder / "README.md").write_text(page(about, parts))


def page(about: Json, parts: Mapping[str, Json]) -> str:
    lines = [
        "# Results of the soak",
        "",
        "Written by `make soak`, which takes hours and is not part of `make test`; all figures are in `soak.json`.",
        "",
        *(f"* {key}: {value}" for key, value in about.items()),
        *_what_is_missing(parts),
        "",
        "| Part | Done | Holds | Figures |",
        "|---|---|---|---|",
    ]
    for name, part in parts.items():
        shown = "; ".join(
            f"{key.replace('_', ' ')} {_short(value)}" for key, value in part["summary"].items() if key in _SHOWN
        )
        lines.append(f"| {name} | {part['done']} of {part['pieces']} | {_holds(part)} | {shown} |")
    lines += _growth_table(parts.get("shards", {}).get("summary", {}))
    return "\n".join(lines) + "\n"


def _what_is_missing(parts: Mapping[str, Json]) -> list[str]:
    """A sentence about the parts that are not whole; none if all are."""
    not_run = [name for name, part in parts.items() if not part["done"]]
    begun = [name for name, part in parts.items() if 0 < part["done"] < part["pieces"]]
    said = [f"{what}: {', '.join(names)}" for what, names in (("not run", not_run), ("not finished", begun)) if names]
    return ["", f"**This is a part of the soak.** {'; '.join(said).capitalize()}."] if said else []


def _holds(part: Json) -> str:
    if not part["done"]:
        return "-"
    if not part["summary"]["ok"]:
        return "no"
    return "yes" if part["done"] == part["pieces"] else "so far"


_SHOWN = (
    *("shards", "jobs", "jobs_that_failed", "restarts", "seeds", "failed_seeds", "events", "storms"),
    *("bugs_found", "bugs_not_found", "first_seed_max"),
    *("replayed_starts", "replayed_events", "jobs_that_outlived", "takeover_s_max", "wasted_executions"),
)


def _short(value: object) -> str:
    match value:
        case list():
            return str(len(value))
        case dict():
            return ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
        case int():
            return f"{value:,}"
    return str(value)


def _growth_table(shards: Json) -> list[str]:
    if not any(node["samples"] for node in shards.get("nodes", [])):
        return []
    lines = [
        "",
        "What a node has on average over the last quarter of the shards, and its slope per 1,000 shards there. Results",
        "are kept for minutes in the soak, not for a day, so that the end of their keeping is in it.",
        "",
        "| Node | Memory MiB | slope | Descriptors | slope | Threads | slope | Disk MiB | slope |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for number, node in enumerate(shards["nodes"]):
        cells = []
        for measure in ("memory", "descriptors", "threads", "disk"):
            unit = 1 << 20 if measure in ("memory", "disk") else 1
            flat = "" if node[measure]["flat"] else " (grows)"
            cells += [f"{node[measure]['level'] / unit:.1f}", f"{node[measure]['per_1000_shards'] / unit:+.3f}{flat}"]
        restarted = "" if number in shards["let_run"] else " (restarted)"
        lines.append(f"| {number}{restarted} | {' | '.join(cells)} |")
    lines += [
        "",
        "Memory in MiB over each tenth of the shards, of the nodes that are let run from the first quarter on:",
        "",
    ]
    for number, tenths in zip(shards["let_run"], shards["memory_by_tenths"], strict=True):
        lines.append(f"* node {number}: {', '.join(f'{level / (1 << 20):.0f}' for level in tenths)}")
    return lines


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
