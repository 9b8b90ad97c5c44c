"""``make soak``: what takes hours, piece by piece; run again, it goes on where it stopped.

    SOAK_DIR     what was found so far (.soak); remove it to begin anew
    SOAK_SCALE   how much of everything (1): 0.01 tries it out, and leaves docs/results alone
    SOAK_PARTS   which parts (all): register,shards,seeds,planted,any-party,chaos

Exit status: 0 all that was asked for is done and holds, 1 something does not hold, 2 it could not be begun.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.soak import commands, results
from tests.soak.pieces import Json, Part, Store
from tests.soak.shards import ShardsPart

PARTS = {
    "register": commands.register,
    "shards": ShardsPart,
    "seeds": commands.seeds,
    "planted": commands.planted,
    "any-party": commands.any_party,
    "chaos": commands.chaos,
}


def main() -> int:
    scale = float(os.environ.get("SOAK_SCALE", "1"))
    folder = Path(os.environ.get("SOAK_DIR", results.ROOT / ".soak")).absolute()
    wanted = os.environ.get("SOAK_PARTS", ",".join(PARTS)).split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        return _refuse(f"SOAK_PARTS: there is no {unknown[0]!r}, only {', '.join(PARTS)}")
    parts: list[Part] = [make(scale) for make in PARTS.values()]
    about = {"version": results.version(), "scale": scale}
    try:
        store = Store(folder, about)
    except ValueError as error:
        return _refuse(str(error))
    os.chdir(results.ROOT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C does
    for part in parts:
        if part.name in wanted:
            for piece, result in store.run(part):
                print(
                    f"{datetime.now(UTC):%H:%M:%S} {part.name} {piece}: {'ok' if result['ok'] else 'FAILED'}",
                    flush=True,
                )
                _write(store, parts, about)
    found = _write(store, parts, about)
    return 0 if all(found[name]["summary"]["ok"] for name in wanted) else 1


def _write(store: Store, parts: list[Part], about: Json) -> dict[str, Json]:
    """Write what is known by now: to the docs if it is the whole soak, else beside its pieces."""
    known = {part.name: store.results(part) for part in parts}
    found = {
        part.name: {
            "done": len(known[part.name]),
            "pieces": len(part.pieces),
            "summary": part.summary(known[part.name]),
        }
        for part in parts
    }
    target = results.PUBLISHED if about["scale"] == 1 else store.folder / "results"
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    command = "make soak" if about["scale"] == 1 else f"SOAK_SCALE={about['scale']:g} make soak"
    results.write(target, {**about, "command": command, "date": date, "machine": results.machine()}, found)
    return found


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
